-- Every promoter has its adapters, and a finite label or none. Every fiftieth one is checked for other letters than ACGTN
-- (checking all would take a tenth of the build).
select id, sequence, expression
from (select id, sequence, expression from promoters), (select left_adapter, right_adapter from dataset)
where not starts_with(sequence, left_adapter)
    or not ends_with(sequence, right_adapter)
    or not isfinite(expression)
    or (id % 50 = 0 and regexp_matches(sequence, '[^ACGTN]'));
