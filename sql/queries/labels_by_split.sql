-- Share of the promoters of each fine-tuning split by label, rounded down to a whole number.
-- Random splits have nearly the same shares. A share differs by chance by about sqrt(share / promoters of the split).
with counts as (
    select
        floor(expression) as value,
        count(*) filter (split = 'train') as train,
        count(*) filter (split = 'valid') as valid,
        count(*) filter (split = 'test') as test
    from finetune
    where expression is not null
    group by value
)
select
    value as expression,
    train / greatest(sum(train) over (), 1) as train,
    valid / greatest(sum(valid) over (), 1) as valid,
    test / greatest(sum(test) over (), 1) as test
from counts
order by value;
