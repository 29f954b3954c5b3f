-- Mean and quartiles of expression by GC content of the insert, in steps of 5 %: 0.4 means 40 % to less than 45 %.
-- Half of the promoters of a step lie between lower_quartile and upper_quartile. N is not counted as a base.
-- Promoters without a label are left out.
with counted as (
    select
        expression,
        strlen(translate(insert_of(sequence), 'ATN', '')) as gc,
        strlen(replace(insert_of(sequence), 'N', '')) as bases
    from promoters
    where expression is not null
)
select
    floor(20 * counted.gc / bases) / 20 as gc,
    count(*) as promoters,
    avg(expression) as mean_expression,
    quantile_cont(expression, 0.25) as lower_quartile,
    quantile_cont(expression, 0.75) as upper_quartile
from counted
where bases > 0
group by all
order by gc;
