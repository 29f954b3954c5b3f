-- Number of held-out promoters of each run and split by prediction and label, for a heat map. Both values are rounded to
-- a step of about 1/36 of the range of the labels: 0.5 in the yeast assay. With several labels, column split names split
-- and label.
with width as (
    select label, greatest(max(expression) - min(expression), 1e-6) / 36 as exact_step
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
)
select
    run,
    concat_ws(', ', predictions.split, predictions.label) as split,
    step,
    round(expression / step) * step as measured,
    round(prediction / step) * step as predicted,
    count(*) as promoters
from predictions
join measurements using (id), round_number
where predictions.label is not distinct from measurements.label
    and predictions.label is not distinct from round_number.label
group by all
order by all;
