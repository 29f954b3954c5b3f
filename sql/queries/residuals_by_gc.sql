-- Residuals of held-out promoters by GC content of the insert, in steps of 5 %: 0.4 means 40 % to less than 45 %.
-- A residual is label minus prediction: above 0, the prediction is too low. N is not counted as a base.
-- With several labels, column split names split and label.
with counted as (
    select
        predictions.run,
        concat_ws(', ', predictions.split, predictions.label) as split,
        measurements.expression - predictions.prediction as residual,
        strlen(translate(insert_of(promoters.sequence), 'ATN', '')) as gc,
        strlen(replace(insert_of(promoters.sequence), 'N', '')) as bases
    from predictions
    join promoters using (id)
    join measurements using (id)
    where predictions.label is not distinct from measurements.label
)
select
    run,
    split,
    floor(20 * counted.gc / bases) / 20 as gc,
    count(*) as promoters,
    avg(residual) as mean_residual,
    stddev(residual) / sqrt(count(*)) as standard_error,
    quantile_cont(residual, 0.25) as lower_quartile,
    quantile_cont(residual, 0.75) as upper_quartile
from counted
where bases > 0
group by run, split, floor(20 * counted.gc / bases) / 20
order by run, split, gc;
