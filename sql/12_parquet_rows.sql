-- The rows of one Parquet file: promoters with ids from first_id to before next_id, in the order of their positions.
-- parquet_split: their split of finetune; null for promoters in no split.
create or replace temp macro is_pretrained(id, expression) as
    expression >= (select cut from dataset) and id >= (select pretrain_from from dataset);
create or replace temp view parquet_rows as
with earlier as (
    select count(*) filter (is_pretrained(id, expression)) as top_rows
    from promoters
    where id < getvariable('first_id')
),
counted as (
    select
        id,
        sequence,
        expression,
        is_pretrained(id, expression) as pretrain_split,
        -- The table is in the order of id, so a running count gives the place in pretrain without a sort.
        count(*) filter (is_pretrained(id, expression)) over (rows unbounded preceding)
        + (select top_rows from earlier) - 1 as pretrain_position/* names */
    from promoters
    where id >= getvariable('first_id') and id < getvariable('next_id')
)
select
    id,
    sequence,
    expression,
    getvariable('parquet_split')::varchar as split,
    if(getvariable('parquet_split') is null, null, id - getvariable('first_id')) as position,
    case
        when pretrain_split is not true then null
        when pretrain_position < (select pretrain_valid_rows from dataset) then 'valid'
        else 'train'
    end as pretrain_split,
    case
        when pretrain_split is not true then null
        when pretrain_position < (select pretrain_valid_rows from dataset) then pretrain_position
        else pretrain_position - (select pretrain_valid_rows from dataset)
    end as pretrain_position/* names */
from counted;
