-- No promoter without its adapters or with a label that is not finite; and in each fiftieth, no letters but ACGTN (to
-- read all letters again would be a tenth of the build).
select id, sequence, expression
from promoters, dataset
where not starts_with(sequence, left_adapter)
    or not ends_with(sequence, right_adapter)
    or not isfinite(expression)
    or (id % 50 = 0 and regexp_matches(sequence, '[^ACGTN]'));
