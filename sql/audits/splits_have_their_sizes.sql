-- Each split of finetune and pretrain has the size that dataset states, and positions without gaps.
with found as (
    select 'finetune' as stage, split, count(*) as n, count(distinct position) as positions, max(position) as last
    from finetune
    group by all
    union all
    select 'pretrain', split, count(*), count(distinct position), max(position)
    from pretrain
    group by all
),
stated as (
    select 'finetune' as stage, 'test' as split, finetune_test_rows as n from dataset
    union all select 'finetune', 'valid', finetune_valid_rows from dataset
    union all
    select 'finetune', 'train', promoters - finetune_test_rows - finetune_valid_rows from dataset
    union all select 'pretrain', 'valid', pretrain_valid_rows from dataset
    union all select 'pretrain', 'train', pretrain_rows - pretrain_valid_rows from dataset
)
select stage, split, stated.n as stated, coalesce(found.n, 0) as found
from stated
full join found using (stage, split)
where stated.n is distinct from coalesce(found.n, 0)
    or found.positions <> found.n
    or found.last <> found.n - 1;
