-- One row per row of the tables (Parquet, Arrow, JSON lines), in file order.
-- source_rows is a stream of cells (pipeline/dataset/input/tables.py): file, line, sequence, expression, name, and one
-- column cell_N for each further column of the input.
create or replace temp view input as
select
    file::varchar as file,
    line,
    if(getvariable('labelled'), concat_ws(chr(9), coalesce(sequence, ''), coalesce(expression, '')), sequence) as text,
    getvariable('columns') as fields,
    sequence,
    if(getvariable('labelled'), expression, null) as expression,
    1 as copy,
    name,
    source_rows.* exclude (file, line, sequence, expression, name)
from source_rows;
