-- 5-mers of the insert that are enriched (log2_ratio above 0) or depleted (below 0) in strong promoters. Strong promoters
-- are those of relation pretrain. A log2_ratio of 1 means twice as frequent as in the other promoters, -1 half as frequent.
-- Each occurrence on the stored strand is counted. A binding site that works in both orientations appears as a k-mer and
-- as its reverse complement, other_strand. For 6-mers, set k to 6. A pseudocount of 1 is added to each count, so that all
-- ratios are finite.
with size as (
    select 5 as k
),
inserts as (
    select insert_of(promoters.sequence) as bases, pretrain.id is not null as is_top
    from promoters
    left join pretrain using (id)
),
starts as (
    select bases, is_top, unnest(range(1, length(bases) + 1, 4)) as start
    from inserts
),
-- Count words of k + 3 bases, then the k-mers in the words. Each k-mer of an insert lies in exactly one word.
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
