-- Sequences that were measured more than once, and how much their labels differ.
-- noise_sd is the standard deviation of the labels of one sequence. It is the measurement error of the assay, which no
-- model can predict.
with repeated_hashes as (
    -- Grouping by a hash takes a fraction of the memory of grouping by sequence.
    select hash(sequence) as sequence_hash
    from promoters
    group by sequence_hash
    having count(*) > 1
),
repeated as (
    select count(*) as copies, max(expression) - min(expression) as apart, var_samp(expression) as variance
    from promoters
    where hash(sequence) in (select sequence_hash from repeated_hashes)
    group by sequence
    having count(*) > 1
)
select
    copies,
    count(*) as sequences,
    avg(apart) as mean_apart,
    max(apart) as largest_apart,
    sqrt(avg(variance)) as noise_sd
from repeated
group by copies
order by copies;
