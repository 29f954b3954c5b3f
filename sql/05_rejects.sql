-- The number of input rows: counted in the bytes of the files (pipeline/dataset/input/row_count.py), so that an audit can
-- find a lost row. Without that count, the view is scanned for it.
create or replace temp table input_size as
select coalesce(getvariable('input_rows'), count(*)) as input_rows
from input
where getvariable('input_rows') is null;

-- One row per input row that breaks a rule, with its file, line and reason.
create or replace table rejects as
with numbered as (
    select
        row_number() over () as row,
        file,
        line,
        text,
        fields,
        reject_code(fields, sequence, expression, copy/* rule */) as code
    from input
    -- If no row is rejected, this condition saves a second pass over the input.
    where (select input_rows from input_size) > (select count(*) from promoters)
),
first_rows as (
    select file, min(row) as first_row
    from numbered
    group by file
)
select
    file,
    coalesce(line, row - first_row + 1 + getvariable('skip_lines')) as line,
    reject_reason(code, fields) as reason,
    text
from numbered
join first_rows using (file)
where code is not null
order by file, line;

-- The number of promoters that each repair changed. One sequence may need several repairs.
create or replace table repairs as
with steps as (
    select
        sequence as original,
        without_white_space(original) as stripped,
        in_upper_case(stripped) as upper_case,
        without_uracil(upper_case) as dna,
        without_iupac(dna) as acgtn,
        with_exact_adapters(acgtn) as exact,
        with_adapters(exact) as whole
    from input
    where (
        getvariable('white_space'), getvariable('lower_case'), getvariable('uracil'), getvariable('iupac'),
        getvariable('missing_adapters'), getvariable('adapter_mismatches')
    ) <> ('reject', 'reject', 'reject', 'reject', 'reject', 0)
        and reject_code(fields, sequence, expression, copy/* rule */) is null
),
counts as (
    select unnest([
        {'rule': 'white_space', 'rows': count(*) filter (original <> stripped)},
        {'rule': 'lower_case', 'rows': count(*) filter (stripped <> upper_case)},
        {'rule': 'uracil', 'rows': count(*) filter (upper_case <> dna)},
        {'rule': 'iupac', 'rows': count(*) filter (dna <> acgtn)},
        {'rule': 'adapter_mismatches', 'rows': count(*) filter (acgtn <> exact)},
        {'rule': 'missing_adapters', 'rows': count(*) filter (exact <> whole)}
    ]) as count
    from steps
)
select count.rule, count.rows
from counts
where count.rows > 0;
