-- Mean expression of promoters with and without a binding site in the insert, on either strand. An effect of several
-- standard errors is not due to chance. It may be due to base composition: compare with gc_against_expression.sql.
-- Write your own sites into the list; promoters are read once per site.
with sites(factor, site) as (
    values
        ('Cbf1', 'CACGTG'),
        ('Gcn4', 'TGACTCA'),
        ('Hap2/3/4/5', 'CCAAT'),
        ('Mig1', 'CCCCAC'),
        ('poly-dA:dT', 'AAAAAAA'),
        ('Rap1', 'ACACCCA'),
        ('Reb1', 'TTACCCG'),
        ('Rsc3', 'CGCGCG'),
        ('TATA', 'TATAAA'),
        ('Ume6', 'GGCGGC')
),
seen as (
    select
        factor,
        site,
        contains(insert_of(sequence), site) or contains(insert_of(sequence), reverse_complement(site)) as has_it,
        expression
    from promoters, sites
)
select
    factor,
    site,
    reverse_complement(site) as other_strand,
    count(*) filter (has_it) as promoters_with,
    avg(expression) filter (has_it) as mean_with,
    avg(expression) filter (not has_it) as mean_without,
    mean_with - mean_without as effect,
    sqrt(
        var_samp(expression) filter (has_it) / count(*) filter (has_it)
        + var_samp(expression) filter (not has_it) / count(*) filter (not has_it)
    ) as standard_error
from seen
group by factor, site
order by effect desc nulls last, factor;
