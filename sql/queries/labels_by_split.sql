-- Share of each fine-tuning split's promoters by whole number of the label. The splits are drawn at random, so a row's
-- shares differ by chance alone: by about the root of share / promoters of the split.
select
    floor(expression) as expression,
    count(*) filter (split = 'train') / nullif(sum(count(*) filter (split = 'train')) over (), 0) as train,
    count(*) filter (split = 'valid') / nullif(sum(count(*) filter (split = 'valid')) over (), 0) as valid,
    count(*) filter (split = 'test') / nullif(sum(count(*) filter (split = 'test')) over (), 0) as test
from finetune
group by all
order by all;
