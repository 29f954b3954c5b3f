-- One row per entry of the FASTA input, in file order.
-- source_rows is a stream of entries (pipeline/dataset/input/fasta.py): file, line, text, header, sequence.
-- The label is the last of several words of the header: >anything 11.5, >id|11.5 or >id expression=11.5.
create or replace temp view input as
select
    file::varchar as file,
    line,
    -- Without the last line end.
    left(text, -1) as text,
    2 as fields,
    sequence,
    regexp_extract(header, '[\s=|:;,]([^\s=|:;,]+)\s*$', 1) as expression,
    1 as copy,
    -- The first word of the header.
    regexp_extract(header, '^>[\s\v]*([^\s\v]+)', 1) as name
from source_rows;
