-- Held-out promoters that the runs get most wrong; above 0 the error says that the prediction is too high.
select run, split, id, sequence, expression, prediction, prediction - expression as error
from predictions
join promoters using (id)
order by abs(error) desc, run, id
limit 20;
