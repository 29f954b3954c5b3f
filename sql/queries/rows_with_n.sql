-- Promoters by number of unknown bases (N): 0 to 9 one by one, then in tens, so 10 means 10 to 19.
-- The mean expression of promoters with many N is uncertain, because their motifs are unknown.
select
    case when n < 10 then n else n // 10 * 10 end as from_n,
    count(*) as promoters,
    count(*) / sum(count(*)) over () as share,
    avg(expression) as mean_expression
from (select length(sequence) - length(replace(sequence, 'N', '')) as n, expression from promoters)
group by from_n
order by from_n;
