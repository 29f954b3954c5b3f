-- Every promoter at or above the cut is in pretrain, none below it; the cut leaves int(f n) rows or fewer above. With a
-- given split, all of this holds for its training rows.
with bounds as (
    select
        if(dataset.split = 'column' and cut is not null, finetune_test_rows + finetune_valid_rows, 0) as first_id,
        pretrain_rows - if(pretrain_from < first_id, pretrain_valid_rows, 0) as top_rows
    from dataset
),
counts as (
    select
        count(promoters.expression) as candidates,
        count(*) filter (promoters.expression > (select cut from dataset)) as above,
        count(*) filter (promoters.expression >= (select cut from dataset)) as at_or_above
    from promoters
    where coalesce(promoters.id, 0) >= (select first_id from bounds)
)
select cut, top_fraction, above, at_or_above, top_rows
from dataset, counts, bounds
where top_rows <> at_or_above
    or above > floor(top_fraction * candidates)
    or (cut is not null and at_or_above < least(floor(top_fraction * candidates) + 1, candidates));
