-- One row per line of the text files, in file order; read as whole lines, so that no line can be lost to parsing.
create or replace temp view source_rows as
select filename as file, line as text
from read_csv(
    getvariable('input_files'),
    columns = {'line': 'VARCHAR'}, filename = true, header = false, auto_detect = false,
    delim = chr(1), quote = '', escape = '', strict_mode = false, skip = getvariable('skip_lines')
);
