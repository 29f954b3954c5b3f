-- One row a row of the Parquet files, in file order, where no labels are asked for: for predictions.
create or replace temp view input as
select filename as file, sequence::varchar as text, 1 as fields, sequence::varchar as sequence, null as expression
from read_parquet(getvariable('input_files'), filename = true);
