-- One row an entry of the FASTA files, in file order. Stands in for inputs/text.sql.
-- The label is the last of several words of the header: >anything 11.5, >id|11.5 or >id expression=11.5.
create or replace temp view input as
with lines as (
    select
        row_number() over () as row,
        filename as file,
        case when ends_with(line, chr(13)) then left(line, -1) else coalesce(line, '') end as text
    from read_csv(
        getvariable('input_files'),
        columns = {'line': 'VARCHAR'}, filename = true, header = false, auto_detect = false,
        delim = chr(1), quote = '', escape = '', strict_mode = false
    )
),
numbered as (
    select
        *,
        row - min(row) over (partition by file) + 1 as line,
        -- (A count with a filter is computed anew for each row, which takes some 200 times as long.)
        sum(starts_with(text, '>')::integer) over (partition by file order by row rows unbounded preceding) as entry
    from lines
),
entries as (
    select
        file,
        min(row) as row,
        min(line) as line,
        string_agg(text, chr(10) order by row) as text,
        any_value(text) filter (starts_with(text, '>')) as header,
        string_agg(text, '' order by row) filter (not starts_with(text, '>')) as sequence
    from numbered
    -- Empty lines before the first header are no entry; other text there is one, without a header.
    where entry > 0 or text <> ''
    group by file, entry
)
select
    file,
    line,
    text,
    2 as fields,
    sequence,
    regexp_extract(header, '[\s=|:;,]([^\s=|:;,]+)\s*$', 1) as expression,
    1 as copy
from entries
order by row;
