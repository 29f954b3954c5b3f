-- Labels by whole number, and which of them are above the pretraining cut.
select floor(expression) as expression, count(*) as promoters, count(*) filter (expression >= cut) as pretrained_on
from promoters, dataset
group by all
order by all;
