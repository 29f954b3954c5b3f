-- One row: the sizes, the settings of the splits, and the dataset key that shards and runs refer to.
create or replace table dataset as
with counts as (
    select (select input_rows from input_size) as input_rows, (select count(*) from promoters) as promoters
),
-- The rows held out from fine-tuning. Promoters without labels are used for prediction only: all are test rows. A given
-- split (dataset.split = column) has the sizes of the input; valid_from_train takes the first ones of its training rows,
-- which are in random order, for validation.
held_out as (
    select
        input_rows,
        promoters,
        getvariable('labelled') and getvariable('split') = 'column' as given,
        case
            when not getvariable('labelled') then 0
            when given then getvariable('given_valid')
                + rows_of(getvariable('valid_from_train'), getvariable('given_train'))
            else rows_of(getvariable('finetune_valid'), promoters)
        end as finetune_valid_rows,
        case
            when not getvariable('labelled') then promoters
            when given then getvariable('given_test')
            else rows_of(getvariable('finetune_test'), promoters)
        end as finetune_test_rows,
        -- The first id that pretraining may draw from: all rows of a random split, the training rows of a given one.
        if(given, finetune_test_rows + finetune_valid_rows, 0) as first_id
    from counts
),
candidates as (
    select count(expression) as candidates
    from promoters
    where id >= (select first_id from held_out)
),
-- The pretraining threshold (cut): the label at index int(top_fraction * candidates) of the descending sort.
-- Candidates at or above it are in pretrain. Null without labels. With several labels, expression is one of them, or the
-- highest (dataset.cut_label), and rows in which it is missing do not count.
cut as (
    select expression as cut
    from promoters
    where id >= (select first_id from held_out)
    order by expression desc nulls last
    limit 1
    offset (
        select greatest(least(floor(getvariable('top_fraction')::double * candidates)::bigint, candidates - 1), 0)
        from candidates
    )
),
top as (
    select
        count(*) filter (id >= (select first_id from held_out)) as top_rows,
        -- Validation rows of a given split at or above the cut: pretraining is validated on them, at most on
        -- pretrain_valid_at_most. So it neither learns from held-out rows nor gives up training rows. Without any such
        -- row, it is validated on training rows of fine-tuning, as with a random split.
        count(*) filter (
            (select given from held_out)
            and id >= (select finetune_test_rows from held_out) and id < (select first_id from held_out)
        ) as top_valid_rows
    from promoters
    where expression >= (select cut from cut)
),
pretrain_valid as (
    select case
        when not getvariable('labelled') then 0
        when top_valid_rows > 0 then least(top_valid_rows, getvariable('pretrain_valid_at_most'))
        else least(rows_of(getvariable('pretrain_valid'), top_rows), getvariable('pretrain_valid_at_most'))
    end::bigint as pretrain_valid_rows
    from top
),
sizes as (
    select
        input_rows,
        promoters,
        cut,
        top_rows + if(top_valid_rows > 0, pretrain_valid_rows, 0) as pretrain_rows,
        pretrain_valid_rows,
        finetune_valid_rows::bigint as finetune_valid_rows,
        finetune_test_rows::bigint as finetune_test_rows,
        getvariable('seed')::bigint as seed,
        getvariable('split') as split,
        getvariable('max_mismatches')::bigint as max_mismatches,
        getvariable('random_split_leaks')::bigint as random_split_leaks,
        getvariable('top_fraction')::double as top_fraction,
        getvariable('left_adapter') as left_adapter,
        getvariable('right_adapter') as right_adapter,
        getvariable('upstream') as upstream,
        getvariable('downstream') as downstream
    from held_out, cut, top, pretrain_valid
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
-- The first id of pretrain: 0, or for a given split the one that leaves its number of validation rows, or of the first
-- training row.
first_row as (
    select case
        when (select top_valid_rows from top) > 0 then (
            select id
            from promoters
            where expression >= (select cut from cut)
                and id >= (select finetune_test_rows from held_out) and id < (select first_id from held_out)
            order by id
            limit 1
            offset (select top_valid_rows - pretrain_valid_rows from top, sizes)
        )
        else (select first_id from held_out)
    end as pretrain_from
),
-- The id of the first training row of pretrain.
first_train as (
    select id as pretrain_train_from
    from promoters
    where expression >= (select cut from cut) and id >= (select pretrain_from from first_row)
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
    coalesce(getvariable('labels'), if(getvariable('labelled'), ['expression'], []))::varchar[] as labels,
    (select pretrain_from from first_row) as pretrain_from
from sizes, training, content;

-- One row: the held-out rows of finetune by what they have in common with training rows. Null: not examined; the build
-- examines small datasets (pipeline/dataset/splits/split_leaks.py).
create or replace table split_leaks as
select
    finetune_test_rows + finetune_valid_rows as held_out,
    null::bigint as near_duplicates,
    null::bigint as reverse_complements,
    null::bigint as shared_runs
from dataset;
