-- Macros for the cells of further columns, as text: types of columns, and several labels. A build reads them in the view
-- that pipeline/dataset/rows/columns.py makes.

create or replace temp macro is_missing_cell(cell) as
    cell is null or lower(trim(cell)) in ('', 'nan', 'na', 'n/a', 'null', 'none', '.');
-- Numbers. Digits after a leading zero, as in 007, are names, and so are more digits than a number keeps.
create or replace temp macro is_whole_cell(cell) as regexp_full_match(cell, '\s*[+-]?(0|[1-9][0-9]{0,17})\s*');
create or replace temp macro is_number_cell(cell) as
    try_cast(cell as double) is not null and not regexp_matches(cell, '_|^\s*[+-]?(0[0-9]|[0-9]{19,}\s*$)');

-- One of several labels: null if it is missing. Plus 0.0: minus zero becomes zero.
create or replace temp macro label_of_cell(cell) as
    if(is_missing_cell(cell), null, try_cast(cell as double) + 0.0);
create or replace temp macro label_code_of_cell(cell) as if(is_missing_cell(cell), null, label_code(cell));
