-- 5-mers of the insert that are more frequent (log2_ratio above 0) or less frequent in pretrain, the top by expression,
-- than in the other promoters: 1 means twice, -1 half as frequent. Counted on the stored strand; a binding site that
-- works in both directions is found as itself and as its other_strand.
-- For 6-mers set k to 6. One is added to each count, so that no ratio is infinite.
with size as (
    select 5 as k
),
inserts as (
    select insert_of(sequence) as bases, expression >= cut as is_top
    from promoters, dataset
),
starts as (
    select bases, is_top, unnest(range(1, length(bases) + 1, 4)) as start
    from inserts
),
-- Every k-mer of an insert lies in just one of these words; they are counted first, then the k-mers in them.
words as (
    select
        substring(bases, start::int, k + 3) as word,
        count(*) filter (is_top) as top,
        count(*) filter (not is_top) as rest
    from starts, size
    group by word
),
kmers as (
    select substring(word, step::int, k) as kmer, sum(top)::bigint as top, sum(rest)::bigint as rest
    from words, size, range(1, 5) as steps(step)
    where step + k - 1 <= length(word)
    group by kmer
    having not contains(kmer, 'N')
)
select
    kmer,
    reverse_complement(kmer) as other_strand,
    top,
    rest,
    log2((top + 1) / (sum(top + 1) over ())) - log2((rest + 1) / (sum(rest + 1) over ())) as log2_ratio
from kmers
order by log2_ratio desc, kmer;
