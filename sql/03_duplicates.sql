-- For duplicates = first or average: number the equal sequences among the usable rows. The first is copy 1, the others
-- become rejects. For average, the first one gets the mean of all their labels.
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
    -- Sorted before the sum, so that the last digit of the mean does not depend on the order of the rows.
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
