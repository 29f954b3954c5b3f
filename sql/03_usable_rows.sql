-- One row per input row that breaks no rule, after the repairs.
create or replace temp view usable as
select repaired(sequence) as sequence, if(getvariable('labelled'), expression::double, null) as expression
from input
where reject_code(fields, sequence, expression, copy) is null;
