-- Rows, mean and standard deviation of expression of each split. The splits of a stage are drawn at random: their means
-- should differ by little more than sd / sqrt(rows).
select 'finetune' as stage, split, count(*) as rows, avg(expression) as mean, stddev(expression) as sd
from finetune
group by all
union all
select 'pretrain', split, count(*), avg(expression), stddev(expression)
from pretrain
group by all
order by all;
