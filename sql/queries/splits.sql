-- Rows and mean expression of each split.
select 'finetune' as stage, split, count(*) as rows, avg(expression) as mean, stddev(expression) as sd
from finetune
group by all
union all
select 'pretrain', split, count(*), avg(expression), stddev(expression)
from pretrain
group by all
order by all;
