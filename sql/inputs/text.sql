-- One row per line of view source_rows (a stream of lines, pipeline/dataset/input/lines.py, or inputs/lines.sql), in
-- its order: file, line, text.
create or replace temp view input as
with cells as (
    select
        file::varchar as file,
        line,
        text,
        -- Quotes may begin after the first lines, from which the layout was inferred.
        if(
            getvariable('quoted') or contains(text, '"'), quoted_fields(text, getvariable('delimiter')), null
        ) as fields,
        if(
            fields is not null,
            unquoted(fields[getvariable('sequence_field')]),
            split_part(text, getvariable('delimiter'), getvariable('sequence_field'))
        ) as sequence,
        if(
            fields is not null,
            unquoted(fields[getvariable('expression_field')]),
            split_part(text, getvariable('delimiter'), getvariable('expression_field'))
        ) as expression,
        -- For predictions with a column of names.
        if(
            fields is not null,
            unquoted(fields[getvariable('name_field')]),
            trim(split_part(text, getvariable('delimiter'), getvariable('name_field')))
        ) as name
    from source_rows
)
select
    file,
    line,
    text,
    case
        when fields is not null then field_count(text, fields, getvariable('delimiter'))
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
