-- For split = grouped: one row a usable input row, with its insert and its place in the random order.
create or replace temp table usable as
select
    repaired(sequence) as sequence,
    substring(
        repaired(sequence),
        length(getvariable('left_adapter')) + 1,
        length(repaired(sequence)) - length(getvariable('left_adapter')) - length(getvariable('right_adapter'))
    ) as "insert",
    if(getvariable('labelled'), expression::double, null) as expression,
    shuffle_hash(repaired(sequence), getvariable('seed')) as place
from input
where reject_reason(fields, sequence, expression, copy) is null;
