-- Ids run from 0 to n - 1, each once and in the order of the table (rowid is a row's place in it).
select count(*) as n, max(id) as highest, count(*) filter (id is distinct from rowid) as out_of_place
from promoters
having out_of_place > 0 or highest <> n - 1;
