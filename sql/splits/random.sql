-- One row per valid input row, in random order: by a hash of sequence and seed.
-- Rows that tie in all three keys are identical, but for further columns, whose values or hash decide then. So ids do not
-- depend on the order of the input, threads or memory. Rows of a given split (dataset.split = column) lie together.
create or replace table promoters as
with shuffled as (
    select sequence, expression/* cells */
    from usable
    order by /* groups */shuffle_hash(sequence, getvariable('seed')), expression, sequence/* ties */
)
select row_number() over () - 1 as id, sequence, expression/* columns */
from shuffled;

-- One row per insert that has near-duplicates. Empty unless dataset.split is grouped.
create or replace table near_duplicates ("insert" varchar, leader varchar, split varchar);
