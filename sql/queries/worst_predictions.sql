-- The 20 largest errors on held-out promoters of the run that finished last: on its test split, else its validation split.
-- For another run, `chosen` is: select 'NAME' as run, 'test' as split. A residual is label minus prediction: above 0,
-- the prediction is too low. Column name is that of the input, if it has one; `from promoters where id = ID` shows the
-- sequence and all kept columns. With several labels, column split names split and label.
with chosen as (
    select predictions.run, min(predictions.split) as split
    from predictions
    left join runs using (run)
    group by predictions.run
    order by max(runs.finished) desc nulls last, predictions.run
    limit 1
),
worst as (
    select
        predictions.run,
        predictions.split,
        predictions.label,
        id,
        measurements.expression,
        predictions.prediction,
        measurements.expression - predictions.prediction as residual
    from predictions
    join chosen using (run, split)
    join measurements using (id)
    where predictions.label is not distinct from measurements.label
    order by abs(residual) desc, id, predictions.label
    limit 20
)
select
    worst.run,
    concat_ws(', ', worst.split, worst.label) as split,
    id,
    to_json(promoters) ->> 'name' as name,
    length(insert_of(promoters.sequence)) as bases,
    worst.expression,
    worst.prediction,
    worst.residual
from worst
join promoters using (id)
order by abs(worst.residual) desc, id, worst.label;
