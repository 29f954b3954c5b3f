-- Build a dataset with the duckdb command line, from the folder above this one:
--   duckdb my.duckdb -c "set variable input_files = ['demo.tsv']" -c "-- (the lone semicolon ends these comments; the shell takes a dot command only at the start of a statement)
;
.read sql/00_settings.sql
.read sql/01_rules.sql
.read sql/01_optional_repairs.sql
.read sql/inputs/lines.sql
.read sql/inputs/text.sql
.read sql/03_usable_rows.sql
.read sql/splits/random.sql
.read sql/05_rejects.sql
.read sql/06_cut_and_sizes.sql
.read sql/07_finetune.sql
.read sql/08_pretrain.sql
.read sql/09_sequence_macros.sql
.read sql/10_results.sql
.read sql/11_comments.sql
