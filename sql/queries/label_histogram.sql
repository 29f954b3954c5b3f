-- Number of promoters by label, rounded down to a whole number: 11 means 11 to less than 12.
-- pretrained_on: how many of them are in relation pretrain. held_out_above: how many are at or above the pretraining
-- threshold, but held out of pretraining, as a given split requires.
select
    floor(promoters.expression) as expression,
    count(*) as promoters,
    count(pretrain.id) as pretrained_on,
    count(*) filter (pretrain.id is null and promoters.expression >= (select cut from dataset)) as held_out_above
from promoters
left join pretrain using (id)
where promoters.expression is not null
group by all
order by all;
