-- Number of rejected rows by reason, with the place and text of the first one.
select
    reason,
    count(*) as rows,
    arg_min(file || ':' || line, (file, line)) as first_at,
    arg_min(text, (file, line)) as example
from rejects
group by all
order by rows desc, reason;
