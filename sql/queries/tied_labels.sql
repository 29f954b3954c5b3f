-- The 20 labels that most promoters share. The yeast assay gives a whole number to a promoter seen in one sorting bin
-- only. whole_numbers is the share of all promoters with a whole number as label. If many promoters share the label at the
-- pretraining threshold, pretrain holds more than dataset.top_fraction of the promoters.
select
    expression,
    count(*) as promoters,
    count(*) / sum(count(*)) over () as share,
    expression = floor(expression) as is_whole,
    sum(count(*) filter (expression = floor(expression))) over () / sum(count(*)) over () as whole_numbers
from promoters
where expression is not null
group by expression
qualify count(*) > 1
order by promoters desc, expression
limit 20;
