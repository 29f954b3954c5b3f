-- No promoter without its adapters, with other letters, or without a finite expression.
select id, sequence, expression
from promoters, dataset
where not starts_with(sequence, left_adapter)
    or not ends_with(sequence, right_adapter)
    or regexp_matches(sequence, '[^ACGTN]')
    or not isfinite(expression);
