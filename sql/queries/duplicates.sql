-- Sequences that were measured more than once, and the differences of their labels. No model can distinguish these
-- rows, so noise_sd, the standard deviation within a sequence, is the part of any error that is due to the assay.
with suspects as (
    -- Numbers in place of sequences: a group for each of them takes a fraction of the memory.
    select hash(sequence) as mark
    from promoters
    group by mark
    having count(*) > 1
),
repeated as (
    select count(*) as copies, max(expression) - min(expression) as apart, var_samp(expression) as variance
    from promoters
    where hash(sequence) in (select mark from suspects)
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
