-- One row per valid input row, with its insert and its place in the random order (dataset.split = grouped).
create or replace temp table inserts as
select
    sequence,
    substring(
        sequence,
        length(getvariable('left_adapter')) + 1,
        length(sequence) - length(getvariable('left_adapter')) - length(getvariable('right_adapter'))
    ) as "insert",
    expression/* cells */,
    shuffle_hash(sequence, getvariable('seed')) as place
from usable;
