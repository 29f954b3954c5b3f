-- Number of promoters by label, rounded down to a whole number: 11 means 11 to less than 12.
-- pretrained_on: how many of them are in relation pretrain.
select
    floor(promoters.expression) as expression,
    count(*) as promoters,
    count(pretrain.id) as pretrained_on
from promoters
left join pretrain using (id)
where promoters.expression is not null
group by all
order by all;
