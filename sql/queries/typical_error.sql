-- Typical error of the predictions of held-out promoters of each run and split, in the unit of the labels: the root mean
-- squared error (rmse), and the median of the absolute errors. sd is the standard deviation of the labels: the rmse of a
-- model that always predicts their mean. With several labels, column split names split and label.
select
    run,
    concat_ws(', ', predictions.split, predictions.label) as split,
    count(*) as promoters,
    sqrt(avg(power(prediction - expression, 2))) as rmse,
    median(abs(prediction - expression)) as median_absolute_error,
    stddev_pop(expression) as sd
from predictions
join measurements using (id)
where predictions.label is not distinct from measurements.label
group by all
order by all;
