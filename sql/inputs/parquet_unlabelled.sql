-- One row per row of the Parquet files, in file order, without labels.
set variable sequence_column = coalesce(getvariable('sequence_column'), 'sequence');
-- A column is needed even if no names are requested.
set variable name_column = coalesce(getvariable('name_column'), getvariable('sequence_column'));
create or replace temp view input as
with cells as (
    select
        filename as file,
        columns(lambda c: c = getvariable('sequence_column'))::varchar as sequence,
        columns(lambda c: c = getvariable('name_column'))::varchar as name
    from read_parquet(getvariable('input_files'), filename = true)
)
select
    file,
    null::bigint as line,
    sequence as text,
    getvariable('columns') as fields,
    sequence,
    null::varchar as expression,
    1 as copy,
    name
from cells;
