-- Number of promoters by label, rounded down to a whole number: 11 means 11 to less than 12.
-- pretrained_on: how many of them are at or above the pretraining threshold (column cut of relation dataset).
select
    floor(expression) as expression,
    count(*) as promoters,
    count(*) filter (promoters.expression >= cut) as pretrained_on
from promoters, dataset
where expression is not null
group by all
order by all;
