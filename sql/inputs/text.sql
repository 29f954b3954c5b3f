-- One row per line of view source_rows (inputs/lines.sql, or a stream), in its order.
create or replace temp view input as
with lines as (
    select file, case when ends_with(text, chr(13)) then left(text, -1) else coalesce(text, '') end as text
    from source_rows
),
cells as (
    select
        file,
        text,
        if(getvariable('quoted'), quoted_fields(text, getvariable('delimiter')), null) as fields,
        if(
            getvariable('quoted'),
            coalesce(trim(fields[getvariable('sequence_field')], '" '), ''),
            split_part(text, getvariable('delimiter'), getvariable('sequence_field'))
        ) as sequence,
        if(
            getvariable('quoted'),
            coalesce(trim(fields[getvariable('expression_field')], '" '), ''),
            split_part(text, getvariable('delimiter'), getvariable('expression_field'))
        ) as expression,
        -- For predictions with a column of names.
        if(
            getvariable('quoted'),
            coalesce(trim(fields[getvariable('name_field')], '" '), ''),
            trim(split_part(text, getvariable('delimiter'), getvariable('name_field')))
        ) as name
    from lines
)
select
    file,
    null::bigint as line,
    text,
    case
        when getvariable('quoted') then len(fields)
        -- Two columns are the usual case, and this check is faster than counting delimiters.
        when strlen(text) = strlen(sequence) + strlen(expression) + 1
            and getvariable('sequence_field') + getvariable('expression_field') = 3 then 2
        else strlen(text) - strlen(replace(text, getvariable('delimiter'), '')) + 1
    end as fields,
    sequence,
    expression,
    1 as copy,
    name
from cells;
