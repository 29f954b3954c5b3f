-- Split by clusters (dataset.split = grouped), in place of splits/random.sql.
-- Reads view inserts (splits/inserts.sql) and relation members: the rows of clusters of several rows, each with a row
-- that stands for its cluster (root).

-- One row per cluster of several rows, with its split. The leader is the alphabetically first insert.
create or replace temp table clusters as
with sizes as (
    select rows_of(getvariable('finetune_test'), count(*)) as test,
        rows_of(getvariable('finetune_valid'), count(*)) as valid,
        count(*) as promoters
    from inserts
),
counted as (
    select root, min("insert") as leader, max("insert") as last, count(*) as rows
    from members
    join inserts using (row)
    group by root
),
-- A hash draws the split of each cluster. The fractions of the splits are the probabilities.
drawn as (
    select
        *,
        shuffle_hash(leader, getvariable('seed')) as place,
        case
            when place::double < pow(2, 64) * test / promoters then 'test'
            when place::double < pow(2, 64) * (test + valid) / promoters then 'valid'
            else 'train'
        end as drawn
    from counted, sizes
)
-- A cluster that does not fit into its split any more goes to training.
select
    root,
    leader,
    leader <> last as has_near_duplicates,
    rows,
    place,
    case
        when drawn = 'test' and sum(rows) over in_order > test then 'train'
        when drawn = 'valid' and sum(rows) over in_order > valid then 'train'
        else drawn
    end as split
from drawn
window in_order as (partition by drawn order by place, leader);

-- Rows that are in no cluster fill test and validation up to their exact sizes.
create or replace temp table fill as
with missing as (
    select
        rows_of(getvariable('finetune_test'), (select count(*) from inserts))
        - coalesce(sum(rows) filter (split = 'test'), 0) as test,
        rows_of(getvariable('finetune_valid'), (select count(*) from inserts))
        - coalesce(sum(rows) filter (split = 'valid'), 0) as valid
    from clusters
),
first_in_order as (
    select row, "insert", shuffle_hash("insert", getvariable('seed')) as place
    from inserts
    anti join members using (row)
    order by place, "insert"
    limit (select test + valid from missing)
)
select
    row,
    if(row_number() over (order by place, "insert") <= (select test from missing), 'test', 'valid') as split
from first_in_order;

-- One row per valid input row: test rows, then validation, then training, each in random order.
create or replace table promoters as
with placed as (
    select
        coalesce(clusters.split, fill.split, 'train') as split,
        coalesce(clusters.place, shuffle_hash("insert", getvariable('seed'))) as place,
        sequence,
        expression
    from inserts
    left join members using (row)
    left join clusters using (root)
    left join fill using (row)
),
shuffled as (
    select sequence, expression
    from placed
    order by
        case split when 'test' then 0 when 'valid' then 1 else 2 end,
        place,
        expression,
        sequence
)
select row_number() over () - 1 as id, sequence, expression
from shuffled;

-- One row per insert that is in a cluster with other inserts, with the split of the cluster.
create or replace table near_duplicates as
select distinct "insert", leader, split
from inserts
join members using (row)
join clusters using (root)
where has_near_duplicates
order by all;
