-- Split by clusters (dataset.split = grouped), in place of splits/random.sql.
-- Reads view inserts (splits/inserts.sql), relation members, and relations clusters and fill (grouped_clusters.sql).

-- One row per valid input row: test rows, then validation, then training, each in random order.
create or replace table promoters as
with placed as (
    select
        coalesce(clusters.split, fill.split, 'train') as split,
        coalesce(clusters.place, shuffle_hash("insert", getvariable('seed'))) as place,
        sequence,
        expression/* cells */
    from inserts
    left join members using (row)
    left join clusters using (root)
    left join fill using (row)
),
shuffled as (
    select sequence, expression/* cells */
    from placed
    order by
        case split when 'test' then 0 when 'valid' then 1 else 2 end,
        place,
        expression,
        sequence/* ties */
)
select row_number() over () - 1 as id, sequence, expression/* columns */
from shuffled;

-- One row per insert that is in a cluster with other inserts, with the split of the cluster.
create or replace table near_duplicates as
select distinct "insert", leader, split
from inserts
join members using (row)
join clusters using (root)
where has_near_duplicates
order by all;
