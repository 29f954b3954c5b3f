-- One row per promoter of the top fraction by expression, ties at the cut included, in the same random order.
-- 06_cut_and_sizes.sql computes the cut.
-- Validation comes first, like the held-out rows of finetune. If its fraction is clearly larger (5 % against 3.4 % in
-- the paper's preset), no promoter held out from fine-tuning is a training row here. The build counts exceptions.
create or replace view pretrain as
with top as (
    select
        id,
        sequence,
        expression,
        case when id < (select pretrain_train_from from dataset) then 'valid' else 'train' end as split
    from promoters
    where expression >= (select cut from dataset)
)
select id, sequence, expression, split, row_number() over (partition by split order by id) - 1 as position
from top;
