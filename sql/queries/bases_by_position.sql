-- The share of each base at each position of the insert. Position 1 is the first base.
-- Only inserts of the most common length are counted (80 bases in the yeast assay). The five shares of a row sum to 1.
-- Random synthesis gives the same shares at all positions.
with inserts as not materialized (
    select insert_of(sequence) as bases
    from promoters
),
common as (
    select length(bases) as width
    from inserts
    group by width
    order by count(*) desc, width
    limit 1
),
starts as (
    select bases, unnest(range(1, width + 1, 4)) as start
    from inserts, common
    where length(bases) = width
),
-- Count words of four bases, then the bases in the words: this takes a quarter of the time.
words as (
    select start, substring(bases, start::int, 4) as word, count(*) as n
    from starts
    group by all
),
letters as (
    select start + step as position, substring(word, step::int + 1, 1) as base, sum(n) as n
    from words, range(0, 4) as steps(step)
    where step < length(word)
    group by all
)
select
    position,
    sum(n)::bigint as promoters,
    coalesce(sum(n) filter (base = 'A'), 0) / sum(n) as a,
    coalesce(sum(n) filter (base = 'C'), 0) / sum(n) as c,
    coalesce(sum(n) filter (base = 'G'), 0) / sum(n) as g,
    coalesce(sum(n) filter (base = 'T'), 0) / sum(n) as t,
    coalesce(sum(n) filter (base = 'N'), 0) / sum(n) as n
from letters
group by position
order by position;
