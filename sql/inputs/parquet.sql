-- One row per row of the Parquet files, in file order.
set variable sequence_column = coalesce(getvariable('sequence_column'), 'sequence');
set variable expression_column = coalesce(getvariable('expression_column'), 'expression');
create or replace temp view input as
with cells as (
    select
        filename as file,
        columns(lambda c: c = getvariable('sequence_column'))::varchar as sequence,
        columns(lambda c: c = getvariable('expression_column'))::varchar as expression
    from read_parquet(getvariable('input_files'), filename = true)
)
select
    file,
    null::bigint as line,
    concat_ws(chr(9), coalesce(sequence, ''), coalesce(expression, '')) as text,
    getvariable('columns') as fields,
    sequence,
    expression,
    1 as copy
from cells;
