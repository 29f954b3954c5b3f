-- One row per usable input row, in the build's random order. The order is total, so id is the same whatever the
-- order of the input, the threads or the memory. Tied rows are equal in all columns.
create or replace table promoters as
with shuffled as (
    select sequence, expression
    from usable
    order by shuffle_hash(sequence, getvariable('seed')), expression, sequence
)
select row_number() over () - 1 as id, sequence, expression
from shuffled;

-- One row per insert that has near-duplicates: filled for split = grouped.
create or replace table near_duplicates ("insert" varchar, leader varchar, split varchar);
