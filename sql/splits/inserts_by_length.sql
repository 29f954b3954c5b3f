-- The inserts with their row numbers, shortest first, as the search for near-duplicates reads them.
select row, "insert"
from inserts
order by strlen("insert");
