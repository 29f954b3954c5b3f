-- One row per valid input row, in random order: by a hash of sequence and seed.
-- Rows that tie in all three keys are identical. So ids do not depend on the order of the input, threads or memory.
create or replace table promoters as
with shuffled as (
    select sequence, expression
    from usable
    order by shuffle_hash(sequence, getvariable('seed')), expression, sequence
)
select row_number() over () - 1 as id, sequence, expression
from shuffled;

-- One row per insert that has near-duplicates. Empty unless dataset.split is grouped.
create or replace table near_duplicates ("insert" varchar, leader varchar, split varchar);
