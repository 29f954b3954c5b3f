-- With a given split (dataset.split = column): each split of finetune has the rows that the input gives it, by their
-- number and the sum of their hashes (valid_from_train moves training rows to validation); pretrain has no test row, and
-- trains on no held-out row.
with bounds as (
    select finetune_test_rows as test, finetune_test_rows + finetune_valid_rows as held_out
    from dataset
    where dataset.split = 'column' and cut is not null
),
given as (
    select each[1] as split, each[2] as n, each[3] as total
    from (select unnest(getvariable('given_rows')) as each)
    where exists (from bounds)
),
actual as (
    select
        case
            when promoters.id < bounds.test then 'test'
            when promoters.id < bounds.held_out and 'valid' in (select split from given) then 'valid'
            else 'train'
        end as split,
        count(*) as n,
        sum(hash(promoters.sequence, promoters.expression))::varchar as total
    from promoters, bounds
    where getvariable('given_rows') is not null
    group by 1
)
select 'finetune' as stage, split, given.n as expected, actual.n as actual
from given
full join actual using (split)
where (given.n, given.total) is distinct from (actual.n, actual.total)
union all
select 'pretrain', pretrain.split, 0, count(*)
from pretrain, bounds
where pretrain.id < bounds.test or (pretrain.split = 'train' and pretrain.id < bounds.held_out)
group by all;
