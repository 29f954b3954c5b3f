-- Macros that are part of the dataset: for queries, and as the reference for tests of the fast code.

-- The reverse complement: the other strand in its own direction.
create or replace macro reverse_complement(bases) as translate(reverse(bases), 'ACGT', 'TGCA');

-- The insert: the random part of a promoter, between the adapters.
create or replace macro insert_of(sequence) as substring(
    sequence,
    (select length(left_adapter) + 1 from dataset),
    length(sequence) - (select length(left_adapter) + length(right_adapter) from dataset)
);

-- The insert between `flank` bases of plasmid on either side (the flanks hold the adapters).
create or replace macro extended(sequence, flank) as
    (select right(upstream, flank) from dataset)
    || insert_of(sequence)
    || (select left(downstream, flank) from dataset);

-- One k-mer id per base: 5 for the special tokens, plus the k bases from this one on as a number in base 5 (A 0, C 1,
-- G 2, T 3, N 4). The sequence is padded with Ns.
create or replace macro kmer_ids(bases, k) as (
    select list_transform(
        range(1, length(sequence) + 1),
        lambda i: 5 + list_reduce(
            list_transform(
                range(0, k),
                lambda j: strpos('ACGTN', substring(sequence || repeat('N', k), i + j, 1)) - 1
            ),
            lambda number, digit: 5 * number + digit
        )
    )
    from (select bases as sequence)
);
