-- Held-out promoters with the largest errors of each run. An error is prediction minus label: above 0, the prediction is
-- too high.
select run, split, id, sequence, expression, prediction, prediction - expression as error
from predictions
join promoters using (id)
order by abs(error) desc, run, id
limit 20;
