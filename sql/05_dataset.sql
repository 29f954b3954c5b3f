-- One row: what was built, how the splits were drawn, and the key that shards and runs are bound to.
create or replace table dataset as
with counts as (
    select (select count(*) from input) as input_rows, (select count(*) from promoters) as promoters
),
-- The pretraining cut: the value at index int(f n) of the descending sort; rows at or above it are in.
cut as (
    select expression as cut
    from promoters
    order by expression desc
    limit 1
    offset (
        select least(floor(getvariable('top_fraction')::double * promoters)::bigint, promoters - 1) from counts
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
        least(
            rows_of(getvariable('pretrain_valid'), pretrain_rows),
            getvariable('pretrain_valid_at_most')
        )::bigint as pretrain_valid_rows,
        rows_of(getvariable('finetune_valid'), promoters) as finetune_valid_rows,
        rows_of(getvariable('finetune_test'), promoters) as finetune_test_rows,
        getvariable('seed')::bigint as seed,
        getvariable('top_fraction')::double as top_fraction,
        getvariable('left_adapter') as left_adapter,
        getvariable('right_adapter') as right_adapter,
        getvariable('upstream') as upstream,
        getvariable('downstream') as downstream
    from counts, cut, top
),
content as (
    select sum(hash(id, sequence, expression))::varchar as content_sum
    from promoters
)
select
    sha256(concat_ws(
        '|', 'promoter-bert dataset 1', content_sum, promoters, cut, pretrain_valid_rows, finetune_valid_rows,
        finetune_test_rows, left_adapter, right_adapter
    )) as key,
    sizes.*
from sizes, content;
