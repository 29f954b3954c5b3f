-- One row a row of the Parquet files, in file order. Stands in for 02_input_text.sql.
create or replace temp view input as
select
    filename as file,
    concat_ws(chr(9), coalesce(sequence, ''), coalesce(expression::varchar, '')) as text,
    2 as fields,
    sequence::varchar as sequence,
    expression::varchar as expression
from read_parquet(getvariable('input_files'), filename = true);
