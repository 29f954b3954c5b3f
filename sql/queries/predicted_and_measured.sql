-- The number of held-out promoters of each run and split by prediction and label, both rounded to a step. The step is
-- 0.5 on the yeast assay's scale (a round number near a thirty-sixth of the labels' range).
with width as (
    select greatest(max(expression) - min(expression), 1e-6) / 36 as wanted from promoters
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
