-- One row a line of the text files, in file order; read as whole lines, so that no line can be lost to parsing.
create or replace temp view input as
with lines as (
    select
        filename as file,
        case when ends_with(line, chr(13)) then left(line, -1) else coalesce(line, '') end as text
    from read_csv(
        getvariable('input_files'),
        columns = {'line': 'VARCHAR'}, filename = true, header = false, auto_detect = false,
        delim = chr(1), quote = '', escape = '', strict_mode = false
    )
)
select
    file,
    text,
    length(text) - length(replace(text, chr(9), '')) + 1 as fields,
    split_part(text, chr(9), 1) as sequence,
    split_part(text, chr(9), 2) as expression
from lines;
