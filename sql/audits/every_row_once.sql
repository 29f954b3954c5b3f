-- Every input row is in promoters or in rejects.
select input_rows, promoters, rejected
from dataset, (select count(*) as rejected from rejects)
where input_rows <> promoters + rejected;
