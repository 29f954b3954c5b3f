-- Held-out promoters of each run and split in twenty equal groups by prediction. If predictions are calibrated, the
-- mean label of a group is within a few standard errors of its mean prediction.
with grouped as (
    select
        run,
        split,
        prediction,
        expression,
        ntile(20) over (partition by run, split order by prediction, id) as quantile
    from predictions
    join promoters using (id)
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
