-- Residuals of held-out promoters by length of the insert in bases.
-- A residual is label minus prediction: above 0, the prediction is too low.
-- With several labels, column split names split and label.
with held_out as (
    select
        predictions.run,
        concat_ws(', ', predictions.split, predictions.label) as split,
        length(insert_of(promoters.sequence)) as bases,
        measurements.expression - predictions.prediction as residual
    from predictions
    join promoters using (id)
    join measurements using (id)
    where predictions.label is not distinct from measurements.label
)
select
    run,
    split,
    bases,
    count(*) as promoters,
    avg(residual) as mean_residual,
    stddev(residual) / sqrt(count(*)) as standard_error,
    quantile_cont(residual, 0.25) as lower_quartile,
    quantile_cont(residual, 0.75) as upper_quartile
from held_out
group by run, split, bases
order by run, split, bases;
