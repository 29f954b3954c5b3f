-- One row a line of the text files, in file order; read as whole lines, so that no line can be lost to parsing.
create or replace temp view input as
with lines as (
    select
        filename as file,
        case when ends_with(line, chr(13)) then left(line, -1) else coalesce(line, '') end as text
    from read_csv(
        getvariable('input_files'),
        columns = {'line': 'VARCHAR'}, filename = true, header = false, auto_detect = false,
        delim = chr(1), quote = '', escape = '', strict_mode = false, skip = getvariable('skip_lines')
    )
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
        -- Of rows to be predicted, where names are asked for.
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
        -- Two columns are the rule, and this is quicker to see than to count delimiters.
        when strlen(text) = strlen(sequence) + strlen(expression) + 1
            and getvariable('sequence_field') + getvariable('expression_field') = 3 then 2
        else strlen(text) - strlen(replace(text, getvariable('delimiter'), '')) + 1
    end as fields,
    sequence,
    expression,
    1 as copy,
    name
from cells;
