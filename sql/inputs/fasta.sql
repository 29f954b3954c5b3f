-- One row per entry of the FASTA files, in file order.
-- source_rows is a stream of entries (pipeline/dataset/input/stream.py): file, line of the header, lines of the entry.
-- The label is the last of several words of the header: >anything 11.5, >id|11.5 or >id expression=11.5.
create or replace temp view input as
with entries as (
    select
        file,
        line,
        text,
        -- Text before the first header of a file is an entry without a header.
        if(starts_with(text, '>'), split_part(text, chr(10), 1), '') as header
    from source_rows
)
select
    file,
    line,
    text,
    2 as fields,
    replace(substring(text, length(header) + 1), chr(10), '') as sequence,
    regexp_extract(header, '[\s=|:;,]([^\s=|:;,]+)\s*$', 1) as expression,
    1 as copy,
    -- The first word of the header.
    regexp_extract(header, '^>[\s\v]*([^\s\v]+)', 1) as name
from entries;
