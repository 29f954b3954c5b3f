-- Every promoter at or above the cut is in pretrain, none below it; the cut leaves int(f n) rows or fewer above.
select cut, top_fraction, above, at_or_above, pretrain_rows
from dataset, (
    select
        count(*) filter (expression > (select cut from dataset)) as above,
        count(*) filter (expression >= (select cut from dataset)) as at_or_above
    from promoters
)
where pretrain_rows <> at_or_above
    or above > floor(top_fraction * promoters)
    or (cut is not null and at_or_above < least(floor(top_fraction * promoters) + 1, promoters));
