-- One row per entry of the FASTA input, in file order.
-- source_rows is a stream of entries (pipeline/dataset/input/fasta.py): file, line, text, header, sequence.
-- The label is the value of the key expression_name in the header, as in >id expression=11.5, or the field with the
-- number expression_field: 2 in >id|11.5.
-- The value of the key expression_name in a header: the first one, or the last one after the pattern `before` = '.*'.
-- A value that continues after a comma, such as 5,2, is no number.
create or replace temp macro header_value(header, before) as regexp_extract(
    header,
    '(?i)' || before || '(?:^>|[\s|;:,])' || regexp_escape(getvariable('expression_name'))
    || '\s*=\s*([^\s|;,]+)(?:[\s|;]|,\D|,?$)',
    1
);
create or replace temp view input as
select
    file::varchar as file,
    line,
    -- Without the last line end.
    left(text, -1) as text,
    2 as fields,
    sequence,
    case
        when getvariable('expression_field') > 0 then coalesce(
            regexp_split_to_array(
                trim(substring(header, 2), ' ' || chr(9) || chr(13)), '\s*[=|:;]\s*|,?\s+'
            )[getvariable('expression_field')],
            ''
        )
        when getvariable('expression_name') <> '' then case
            -- Two values for one key: no label. The name also occurs in other keys.
            when len(string_split(lower(header), lower(getvariable('expression_name')))) > 2
                and header_value(header, '') <> header_value(header, '.*') then ''
            else header_value(header, '')
        end
        else ''
    end as expression,
    1 as copy,
    -- The first word of the header.
    regexp_extract(header, '^>[\s\v]*([^\s\v]+)', 1) as name
from source_rows;
