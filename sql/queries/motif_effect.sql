-- Mean expression of promoters with and without a binding site in the insert, on either strand.
-- An effect of several standard errors is not due to chance. It may be due to base composition: compare with
-- gc_against_expression.sql. Add your own sites to the list. The promoters are read once per site.
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
matches as (
    select
        factor,
        site,
        contains(insert_of(sequence), site) or contains(insert_of(sequence), reverse_complement(site)) as has_site,
        expression
    from (select sequence, expression from promoters), sites
)
select
    factor,
    site,
    reverse_complement(site) as other_strand,
    count(*) filter (has_site) as promoters_with,
    avg(expression) filter (has_site) as mean_with,
    avg(expression) filter (not has_site) as mean_without,
    mean_with - mean_without as effect,
    sqrt(
        var_samp(expression) filter (has_site) / count(*) filter (has_site)
        + var_samp(expression) filter (not has_site) / count(*) filter (not has_site)
    ) as standard_error
from matches
group by factor, site
order by effect desc nulls last, factor;
