-- Residuals (label - prediction; above 0 the prediction is too low) of held-out promoters by label, rounded to a step
-- that is 1 on the yeast assay's scale (a round number near an eighteenth of the labels' range). The slope is what any
-- model shows of noisy labels: the highest are high by luck, too.
with width as (
    select greatest(max(expression) - min(expression), 1e-6) / 18 as wanted from promoters
),
decade as (
    select wanted, power(10, floor(log10(wanted))) as power_of_ten from width
),
round_number as (
    select
        power_of_ten * case
            when wanted <= power_of_ten then 1
            when wanted <= 2 * power_of_ten then 2
            when wanted <= 5 * power_of_ten then 5
            else 10
        end as step
    from decade
),
held_out as (
    select
        run,
        split,
        round(promoters.expression / step) * step as expression,
        promoters.expression - prediction as residual
    from predictions
    join promoters using (id), round_number
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
