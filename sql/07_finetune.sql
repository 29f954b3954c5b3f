-- One row per promoter of fine-tuning, with its split: all promoters, or fewer if dataset.finetune_train is set.
-- The promoters are in random order, so each split is a range of ids: test rows first, then validation, then training.
create or replace view finetune as
with bounds as (
    select finetune_test_rows as test, finetune_test_rows + finetune_valid_rows as held_out,
        held_out + finetune_train_rows as used
    from dataset
)
select
    id,
    sequence,
    expression,
    case when id < bounds.test then 'test' when id < bounds.held_out then 'valid' else 'train' end as split,
    id - case when id < bounds.test then 0 when id < bounds.held_out then bounds.test else bounds.held_out end as position
    /* labels */
from promoters, bounds
where id < bounds.used;
