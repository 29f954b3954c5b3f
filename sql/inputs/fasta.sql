-- One row per entry of the FASTA input, in file order.
-- source_rows is a stream of entries (pipeline/dataset/input/fasta.py): file, line, text, header, sequence.
-- The label is the value of the key expression_name in the header, as in >id expression=11.5, or the field with the
-- number expression_field: 2 in >id|11.5.
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
        -- A value that continues after a comma, such as 5,2, is no number.
        when getvariable('expression_name') <> '' then regexp_extract(
            header,
            '(?i)(?:^>|[\s|;:,])' || regexp_escape(getvariable('expression_name'))
            || '\s*=\s*([^\s|;,]+)(?:[\s|;]|,\D|,?$)',
            1
        )
        else ''
    end as expression,
    1 as copy,
    -- The first word of the header.
    regexp_extract(header, '^>[\s\v]*([^\s\v]+)', 1) as name
from source_rows;
