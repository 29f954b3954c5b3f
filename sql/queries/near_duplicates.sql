-- Which inserts are near-duplicates of each other, largest families first (for a dataset built with split = grouped)?
-- Each row is an insert beside the leader of its family: how many bases differ where both are equally long, its split
-- (the same for the whole family), and its expression beside the leader's. Labels of one family that lie far apart show
-- the assay's noise, or a base that matters.
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
