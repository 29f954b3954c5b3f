-- Compare predicted and measured expression, for the run that finished last: on its test split, else its validation split.
-- For another run, `chosen` is: select 'NAME' as run, 'test' as split. The held-out promoters are sorted by prediction and
-- divided into twenty groups of equal size. For a calibrated model, the mean label of a group differs from its mean
-- prediction by at most a few standard errors. With several labels, column split names split and label.
with chosen as (
    select predictions.run, min(predictions.split) as split
    from predictions
    left join runs using (run)
    group by predictions.run
    order by max(runs.finished) desc nulls last, predictions.run
    limit 1
),
grouped as (
    select
        run,
        concat_ws(', ', predictions.split, predictions.label) as split,
        prediction,
        expression,
        ntile(20) over (partition by run, predictions.split, predictions.label order by prediction, id) as quantile
    from predictions
    join chosen using (run, split)
    join measurements using (id)
    where predictions.label is not distinct from measurements.label
)
select
    run,
    split,
    quantile,
    count(*) as promoters,
    avg(prediction) as mean_prediction,
    avg(expression) as mean_expression,
    stddev(expression) / sqrt(count(*)) as standard_error
from grouped
group by run, split, quantile
order by run, split, quantile;
