-- Promoters by the number of bases that could not be read (N), 0 to 9 singly, then in tens: 10 means 10 to 19.
-- Many Ns hide the motifs, so their mean expression says little about the bases that are left.
select
    case when n < 10 then n else n // 10 * 10 end as from_n,
    count(*) as promoters,
    count(*) / sum(count(*)) over () as share,
    avg(expression) as mean_expression
from (select length(sequence) - length(replace(sequence, 'N', '')) as n, expression from promoters)
group by from_n
order by from_n;
