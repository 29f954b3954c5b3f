-- Promoters by length of the insert in bases, with their mean expression and its standard error. Lengths other than the
-- designed one are errors of synthesis; if their mean differs by several standard errors, they matter.
select
    length(insert_of(sequence)) as bases,
    count(*) as promoters,
    count(*) / sum(count(*)) over () as share,
    avg(expression) as mean_expression,
    stddev(expression) / sqrt(count(*)) as standard_error
from promoters
group by bases
order by bases;
