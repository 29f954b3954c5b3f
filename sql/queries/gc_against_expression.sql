-- Mean and quartiles of expression by GC content of the insert, in steps of 5 %: 0.4 stands for 40 % up to 45 %.
-- Half of a step's promoters lie between lower_quartile and upper_quartile.
select
    floor(20 * length(translate(insert_of(sequence), 'ATN', '')) / length(insert_of(sequence))) / 20 as gc,
    count(*) as promoters,
    avg(expression) as mean_expression,
    quantile_cont(expression, 0.25) as lower_quartile,
    quantile_cont(expression, 0.75) as upper_quartile
from promoters
where length(insert_of(sequence)) > 0
group by gc
order by gc;
