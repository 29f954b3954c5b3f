-- Promoters by length of the insert in bases, with the mean expression and its standard error.
-- Lengths other than the ordered one are probably errors of synthesis, cloning or sequencing.
-- They affect expression if the means differ by several standard errors.
select
    length(insert_of(sequence)) as bases,
    count(*) as promoters,
    count(*) / sum(count(*)) over () as share,
    avg(expression) as mean_expression,
    stddev(expression) / sqrt(count(*)) as standard_error
from promoters
group by bases
order by bases;
