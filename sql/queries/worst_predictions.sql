-- Held-out promoters that the runs get most wrong.
select run, split, id, sequence, expression, prediction, prediction - expression as error
from predictions
join promoters using (id)
order by abs(error) desc, run, id
limit 20;
