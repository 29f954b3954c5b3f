-- Clusters of near-duplicate inserts, largest first, of a dataset built with split = grouped. One row per insert, with
-- the leader of its cluster: the number of bases that differ if both are equally long, the split (the same for the
-- whole cluster), and both expressions. Labels of a cluster that differ a lot show noise, or a base that matters.
with measured as (
    select insert_of(sequence) as "insert", avg(expression) as expression
    from promoters
    group by 1
),
families as (
    select leader, count(*) as inserts
    from near_duplicates
    group by leader
)
select
    families.inserts as family,
    leader,
    "insert",
    if(length(leader) = length("insert"), hamming(leader, "insert"), null) as mismatches,
    split,
    round(own.expression, 2) as expression,
    round(of_leader.expression, 2) as expression_of_leader
from near_duplicates
join families using (leader)
join measured as own using ("insert")
join measured as of_leader on of_leader."insert" = leader
where "insert" <> leader
order by family desc, leader, mismatches, "insert"
limit 50;
