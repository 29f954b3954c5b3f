-- One row per input row that breaks no rule, after the repairs.
-- A comment of one word is a mark, in whose place a build puts further columns of its input (sql/README.md).
create or replace temp view usable as
-- Plus 0.0: minus zero becomes zero, so that equal datasets have equal bytes.
select repaired(sequence) as sequence, if(getvariable('labelled'), expression::double + 0.0, null) as expression/* cells */
from input
where reject_code(fields, sequence, expression, copy/* rule */) is null;
