-- One row a line of the text files, in file order; read as whole lines, so that no line can be lost to parsing.
create or replace temp view input as
with lines as (
    select filename as file, rtrim(coalesce(line, ''), chr(13)) as text
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
    trim(split_part(text, chr(9), 2)) as expression
from lines;
