-- The rows that share a value of dataset.group_column, each with the first of them. Rows without a value stand alone.
with values_of as (
    select /* group_code */ as value, min(row) as first
    from numbered_rows
    group by value
)
select first, row
from numbered_rows
join values_of on values_of.value = /* group_code */;
