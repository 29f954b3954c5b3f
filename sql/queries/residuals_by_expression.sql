-- Residuals of held-out promoters by label. A residual is label minus prediction: above 0, the prediction is too low.
-- Labels are rounded to a step of about 1/18 of their range: 1 in the yeast assay.
-- Even a perfect model has a positive slope: with noisy labels, the highest labels are partly high by chance.
-- A weak model has one, too. With several labels, column split names split and label.
with width as (
    select label, greatest(max(expression) - min(expression), 1e-6) / 18 as exact_step
    from measurements
    group by label
),
decade as (
    select label, exact_step, power(10, floor(log10(exact_step))) as power_of_ten from width
),
round_number as (
    select
        label,
        power_of_ten * case
            when exact_step <= power_of_ten then 1
            when exact_step <= 2 * power_of_ten then 2
            when exact_step <= 5 * power_of_ten then 5
            else 10
        end as step
    from decade
),
held_out as (
    select
        run,
        concat_ws(', ', predictions.split, predictions.label) as split,
        round(measurements.expression / step) * step + 0 as expression,  -- + 0: no negative zero
        measurements.expression - prediction as residual
    from predictions
    join measurements using (id), round_number
    where predictions.label is not distinct from measurements.label
        and predictions.label is not distinct from round_number.label
)
select
    run,
    split,
    expression,
    count(*) as promoters,
    avg(residual) as mean_residual,
    stddev(residual) / sqrt(count(*)) as standard_error,
    quantile_cont(residual, 0.25) as lower_quartile,
    quantile_cont(residual, 0.75) as upper_quartile
from held_out
group by run, split, expression
order by run, split, expression;
