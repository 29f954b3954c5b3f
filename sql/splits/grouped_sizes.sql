-- The numbers of test and validation rows, and the rows of the largest cluster with its root.
select
    coalesce(sum(rows) filter (split = 'test'), 0)::bigint
    + (select count(*) from fill where split = 'test') as test,
    coalesce(sum(rows) filter (split = 'valid'), 0)::bigint
    + (select count(*) from fill where split = 'valid') as valid,
    coalesce(max(rows), 1) as largest
from clusters;
