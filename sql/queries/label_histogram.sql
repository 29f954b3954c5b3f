-- Labels by whole number (11 means 11 up to 12), and how many of them are at or above the pretraining cut.
select
    floor(expression) as expression,
    count(*) as promoters,
    count(*) filter (promoters.expression >= cut) as pretrained_on
from promoters, dataset
group by all
order by all;
