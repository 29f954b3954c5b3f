-- One row per promoter of pretraining, with its split: the promoters with labels at or above the threshold (cut), which
-- 06_cut_and_sizes.sql computes. All promoters with a label equal to the threshold are included. They keep their random
-- order.
-- Validation rows come first, like the held-out rows of finetune. The paper's preset holds out 5 % here and 3.4 % in
-- finetune, so no promoter held out from fine-tuning is a training row here. The build counts exceptions.
-- With a given split (dataset.split = column), the training rows here are training rows of finetune, and the validation
-- rows are validation rows of finetune (06_cut_and_sizes.sql). No test row is in this relation.
create or replace view pretrain as
with top as (
    select
        id,
        sequence,
        expression,
        case when id < (select pretrain_train_from from dataset) then 'valid' else 'train' end as split
    from promoters
    where expression >= (select cut from dataset) and id >= (select pretrain_from from dataset)
)
select id, sequence, expression, split, row_number() over (partition by split order by id) - 1 as position
from top;
