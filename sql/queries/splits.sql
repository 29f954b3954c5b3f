-- Number of promoters of each split, with mean and standard deviation (sd) of expression.
-- In random splits, the means of a stage differ by little more than sd / sqrt(rows).
select 'finetune' as stage, split, count(*) as rows, avg(expression) as mean, stddev(expression) as sd
from finetune
group by all
union all
select 'pretrain', split, count(*), avg(expression), stddev(expression)
from pretrain
group by all
order by all;
