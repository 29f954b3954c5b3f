-- Mean expression by GC content of the insert, in steps of 5 %.
select
    floor(20 * length(regexp_replace(insert_of(sequence), '[^GC]', '', 'g')) / length(insert_of(sequence))) / 20 as gc,
    count(*) as promoters,
    avg(expression) as mean_expression
from promoters
group by gc
order by gc;
