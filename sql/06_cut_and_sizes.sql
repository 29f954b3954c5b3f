-- One row: the sizes, the settings of the splits, and the dataset key that shards and runs refer to.
create or replace table dataset as
with counts as (
    select (select input_rows from input_size) as input_rows, (select count(*) from promoters) as promoters,
        (select count(expression) from promoters) as candidates
),
-- The pretraining threshold (cut): the label at index int(top_fraction * promoters) of the descending sort.
-- Promoters at or above it are in pretrain. Null without labels. With several labels, expression is one of them, or the
-- highest (dataset.cut_label), and rows in which it is missing do not count.
cut as (
    select expression as cut
    from promoters
    order by expression desc nulls last
    limit 1
    offset (
        select greatest(least(floor(getvariable('top_fraction')::double * candidates)::bigint, candidates - 1), 0)
        from counts
    )
),
top as (
    select count(*) as pretrain_rows
    from promoters
    where expression >= (select cut from cut)
),
sizes as (
    select
        input_rows,
        promoters,
        cut,
        pretrain_rows,
        -- Promoters without labels are used for prediction only: all are test rows.
        if(
            getvariable('labelled'),
            least(rows_of(getvariable('pretrain_valid'), pretrain_rows), getvariable('pretrain_valid_at_most')),
            0
        )::bigint as pretrain_valid_rows,
        if(getvariable('labelled'), rows_of(getvariable('finetune_valid'), promoters), 0) as finetune_valid_rows,
        if(getvariable('labelled'), rows_of(getvariable('finetune_test'), promoters), promoters) as finetune_test_rows,
        getvariable('seed')::bigint as seed,
        getvariable('split') as split,
        getvariable('max_mismatches')::bigint as max_mismatches,
        getvariable('random_split_leaks')::bigint as random_split_leaks,
        getvariable('top_fraction')::double as top_fraction,
        getvariable('left_adapter') as left_adapter,
        getvariable('right_adapter') as right_adapter,
        getvariable('upstream') as upstream,
        getvariable('downstream') as downstream
    from counts, cut, top
),
-- The number of training rows of finetune: all that are not held out, or fewer.
training as (
    select
        if(
            getvariable('labelled'),
            training_rows(promoters, finetune_test_rows + finetune_valid_rows),
            promoters - finetune_test_rows - finetune_valid_rows
        ) as finetune_train_rows
    from sizes
),
-- The id of the first training row of pretrain.
first_train as (
    select id as pretrain_train_from
    from promoters
    where expression >= (select cut from cut)
    order by id
    limit 1
    offset (select pretrain_valid_rows from sizes)
),
content as (
    select sum(hash(id, sequence, expression/* labels */))::varchar as content_sum
    from promoters
)
select
    sha256(concat_ws(
        '|', 'promoter-bert dataset 3', content_sum, promoters, cut, pretrain_valid_rows, finetune_valid_rows,
        finetune_test_rows, finetune_train_rows, left_adapter, right_adapter/* key */
    )) as key,
    sizes.*,
    finetune_train_rows,
    coalesce((select pretrain_train_from from first_train), promoters) as pretrain_train_from,
    -- Hash of input files and settings: a build of the same source keeps the existing dataset.
    getvariable('source') as source,
    getvariable('settings') as settings,
    -- Input files relative to the folder of the dataset, or URLs.
    getvariable('files')::varchar[] as files,
    -- Names of the label columns, in order; the one label is in column expression.
    coalesce(getvariable('labels'), if(getvariable('labelled'), ['expression'], []))::varchar[] as labels
from sizes, training, content;
