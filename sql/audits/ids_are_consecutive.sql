-- Ids run from 0 to n - 1, each once.
select count(*) as n, count(distinct id) as ids, min(id) as lowest, max(id) as highest
from promoters
having n <> ids or (n > 0 and (lowest <> 0 or highest <> n - 1));
