-- For dataset.duplicates = first or average: number the copies of equal sequences among the usable rows. Copy 1 is kept
-- and the other copies become rejects. With average, copy 1 gets the mean of the labels of all copies.
create or replace temp table numbered as
select row_number() over () as row, * exclude (copy)
from input;

create or replace temp table copies as
with usable as (
    select row, repaired(sequence) as sequence, if(getvariable('labelled'), expression::double, null) as expression
    from numbered
    where reject_code(fields, sequence, expression, 1) is null
)
select
    row,
    row_number() over (partition by sequence order by row) as copy,
    -- Sort before the sum: otherwise the last digit of the mean depends on the order of the input.
    list_avg(list_sort(list(expression) over (partition by sequence))) as mean
from usable;

create or replace temp view input as
select
    file,
    line,
    text,
    fields,
    sequence,
    if(getvariable('duplicates') = 'average' and copy = 1, mean::varchar, expression) as expression,
    coalesce(copy, 1) as copy
from numbered
left join copies using (row)
order by row;
