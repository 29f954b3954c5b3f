-- Assign clusters to splits (dataset.split = grouped).
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
