-- The 20 largest errors on held-out promoters, over all runs. An error is prediction minus label: above 0, the
-- prediction is too high. With several labels, column split names split and label.
select
    predictions.run,
    concat_ws(', ', predictions.split, predictions.label) as split,
    id,
    promoters.sequence,
    measurements.expression,
    predictions.prediction,
    predictions.prediction - measurements.expression as error
from predictions
join promoters using (id)
join measurements using (id)
where predictions.label is not distinct from measurements.label
order by abs(error) desc, predictions.run, id, predictions.label
limit 20;
