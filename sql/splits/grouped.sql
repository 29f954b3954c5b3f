-- Split by clusters of near-duplicates (dataset.split = grouped), in place of splits/random.sql.
-- Reads temp table inserts (splits/inserts.sql) and relation near: inserts with near-duplicates, each with the leader of
-- its cluster.

-- One row per cluster of equal or near-duplicate inserts. Most clusters hold a single promoter.
create or replace temp table clusters as
with members as (
    select coalesce(leader, "insert") as leader
    from inserts
    left join near using ("insert")
),
sizes as (
    select rows_of(getvariable('finetune_test'), count(*)) as test,
        rows_of(getvariable('finetune_valid'), count(*)) as valid,
        count(*) as promoters
    from inserts
),
counted as (
    select leader, count(*) as rows, shuffle_hash(leader, getvariable('seed')) as place
    from members
    group by leader
),
-- A hash draws the split of each cluster of several rows. The fractions of the splits are the probabilities.
drawn as (
    select
        leader,
        rows,
        place,
        case
            when rows = 1 then 'any'
            when place::double < pow(2, 64) * test / promoters then 'test'
            when place::double < pow(2, 64) * (test + valid) / promoters then 'valid'
            else 'train'
        end as drawn
    from counted, sizes
),
-- A cluster that does not fit into its split any more goes to training.
fitted as (
    select
        leader,
        rows,
        place,
        case
            when drawn = 'test' and sum(rows) over in_order > test then 'train'
            when drawn = 'valid' and sum(rows) over in_order > valid then 'train'
            else drawn
        end as split,
        row_number() over in_order as rank
    from drawn, sizes
    window in_order as (partition by drawn order by place, leader)
),
-- Clusters of one row fill test and validation up to their exact sizes.
missing as (
    select
        any_value(test) - coalesce(sum(rows) filter (split = 'test'), 0) as test,
        any_value(valid) - coalesce(sum(rows) filter (split = 'valid'), 0) as valid
    from fitted, sizes
)
select
    leader,
    rows,
    place,
    case
        when split <> 'any' then split
        when rank <= test then 'test'
        when rank <= test + valid then 'valid'
        else 'train'
    end as split
from fitted, missing;

-- One row per valid input row: test rows, then validation, then training, each in random order.
create or replace table promoters as
with shuffled as (
    select sequence, expression/* cells */
    from inserts
    left join near using ("insert")
    join clusters on clusters.leader = coalesce(near.leader, "insert")
    order by
        case split when 'test' then 0 when 'valid' then 1 else 2 end,
        clusters.place,
        expression,
        sequence/* ties */
)
select row_number() over () - 1 as id, sequence, expression/* columns */
from shuffled;

-- One row per insert that has near-duplicates, with the split of its cluster.
create or replace table near_duplicates as
select "insert", leader, split
from near
join clusters using (leader)
order by all;
