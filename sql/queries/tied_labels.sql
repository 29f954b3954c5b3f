-- The 20 labels that most promoters share: the assay gives a whole number to a promoter seen in one sorting bin only.
-- whole_numbers is the share of all promoters with such a label. A cut among big ties takes more than its fraction.
select
    expression,
    count(*) as promoters,
    count(*) / sum(count(*)) over () as share,
    expression = floor(expression) as is_whole,
    sum(count(*) filter (expression = floor(expression))) over () / sum(count(*)) over () as whole_numbers
from promoters
group by expression
qualify count(*) > 1
order by promoters desc, expression
limit 20;
