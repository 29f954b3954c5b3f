-- For a build in the duckdb command line: one row per line of plain text files, in file order. (Programs register a
-- stream of lines instead, pipeline/dataset/input/lines.py, which also reads other line ends and longer lines.)
-- The delimiter is U+10FFFF, which is no character, so that no line is cut.
create or replace temp view source_rows as
select
    filename as file,
    null::bigint as line,
    case when ends_with(line, chr(13)) then left(line, -1) else coalesce(line, '') end as text
from read_csv(
    getvariable('input_files'),
    columns = {'line': 'VARCHAR'}, filename = true, hive_partitioning = false, header = false, auto_detect = false,
    delim = chr(1114111), quote = '', escape = '', strict_mode = false, max_line_size = 100000000,
    skip = getvariable('skip_lines')
);
