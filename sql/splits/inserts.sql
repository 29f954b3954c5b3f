-- One row per valid input row, numbered, with its insert (dataset.split = grouped).
create or replace temp table numbered_rows as
select row_number() over () - 1 as row, *
from usable;

create or replace temp view inserts as
select
    *,
    substring(
        sequence,
        length(getvariable('left_adapter')) + 1,
        length(sequence) - length(getvariable('left_adapter')) - length(getvariable('right_adapter'))
    ) as "insert"
from numbered_rows;
