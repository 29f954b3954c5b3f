-- Number of held-out promoters of each run and split by prediction and label, for a heat map. Both values are rounded to
-- a step of about 1/36 of the range of the labels: 0.5 in the yeast assay.
with width as (
    select greatest(max(expression) - min(expression), 1e-6) / 36 as exact_step from promoters
),
decade as (
    select exact_step, power(10, floor(log10(exact_step))) as power_of_ten from width
),
round_number as (
    select
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
    split,
    step,
    round(expression / step) * step as measured,
    round(prediction / step) * step as predicted,
    count(*) as promoters
from predictions
join promoters using (id), round_number
group by all
order by all;
