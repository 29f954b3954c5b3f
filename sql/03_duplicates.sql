-- For dataset.duplicates = first or average: number the copies of equal sequences among the usable rows. Copy 1 is kept
-- and the other copies become rejects. With average, copy 1 gets the mean of the labels of all copies.
-- Copies of a given split (dataset.split = column) are numbered by themselves: no row changes or loses its split.
-- Copy 1 keeps its own other columns. It is the first row in the input, or with average the row whose other columns have
-- the lowest hash, which does not depend on the order of the input.
create or replace temp table numbered as
select row_number() over () as row, * exclude (copy)
from input;

create or replace temp table copies as
with usable as (
    select row, repaired(sequence) as sequence, if(getvariable('labelled'), expression::double, null) as expression/* copied */
    from numbered
    where reject_code(fields, sequence, expression, 1/* rule */) is null
)
select
    row,
    row_number() over (partition by sequence/* group */ order by /* first */row) as copy,
    -- Sort before the sum: otherwise the last digit of the mean depends on the order of the input.
    list_avg(list_sort(list(expression) over (partition by sequence/* group */))) as mean/* means */
from usable;

create or replace temp view input as
select
    file,
    line,
    text,
    fields,
    sequence,
    if(getvariable('duplicates') = 'average' and copy = 1, mean::varchar, expression) as expression,
    coalesce(copy, 1) as copy/* rest */
from numbered
left join copies using (row)
order by row;
