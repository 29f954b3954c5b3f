-- Each split of finetune and pretrain has the size in relation dataset, and its positions are 0 to n - 1, each once:
-- their number, lowest, highest, sum and sum of squares are those of 0 to n - 1.
with positions as (
    select 'finetune' as stage, split, position from finetune
    union all
    select 'pretrain', split, position from pretrain
),
actual as (
    select
        stage,
        split,
        count(*)::hugeint as n,
        min(position) as lowest,
        max(position) as highest,
        sum(position::hugeint) as total,
        sum(position::hugeint * position) as squares
    from positions
    group by all
),
expected as (
    select 'finetune' as stage, 'test' as split, finetune_test_rows as n from dataset
    union all select 'finetune', 'valid', finetune_valid_rows from dataset
    union all select 'finetune', 'train', finetune_train_rows from dataset
    union all select 'pretrain', 'valid', pretrain_valid_rows from dataset
    union all select 'pretrain', 'train', pretrain_rows - pretrain_valid_rows from dataset
)
select stage, split, expected.n as expected, coalesce(actual.n, 0) as actual
from expected
full join actual using (stage, split)
where expected.n is distinct from coalesce(actual.n, 0)
    or lowest <> 0
    or highest <> actual.n - 1
    or 2 * total <> actual.n * (actual.n - 1)
    or 6 * squares <> (actual.n - 1) * actual.n * (2 * actual.n - 1);
