-- One row an input row that cannot be used, with its place and the reason.
create or replace table rejects as
with numbered as (
    select row_number() over () as row, file, text, reject_reason(fields, sequence, expression) as reason
    from input
),
first_rows as (
    select file, min(row) as first_row
    from numbered
    group by file
)
select file, row - first_row + 1 as line, reason, text
from numbered
join first_rows using (file)
where reason is not null
order by file, line;
