-- Held-out promoters with the largest errors of each run. An error is prediction minus label: above 0, the prediction is
-- too high. With several labels, column split names split and label.
select
    run,
    concat_ws(', ', predictions.split, predictions.label) as split,
    id,
    sequence,
    measurements.expression,
    prediction,
    prediction - measurements.expression as error
from predictions
join promoters using (id)
join measurements using (id)
where predictions.label is not distinct from measurements.label
order by abs(error) desc, run, id, predictions.label
limit 20;
