-- Clusters of near-duplicate inserts, largest first, of a dataset that was built with dataset.split=grouped.
-- One row per insert and the leader of its cluster: the number of mismatches on the nearer strand if both have the same
-- length, the split of the cluster, and both expressions. Large differences of expression within a cluster show
-- measurement noise or an important base.
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
    if(
        length(leader) = length("insert"),
        least(hamming(leader, "insert"), hamming(leader, reverse_complement("insert"))),
        null
    ) as mismatches,
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
