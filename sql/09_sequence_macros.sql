-- Macros stored in the dataset, for queries. They are also the reference for tests of the fast code.

-- The reverse complement: the opposite strand, read in 5' to 3' direction.
create or replace macro reverse_complement(bases) as translate(reverse(bases), 'ACGT', 'TGCA');

-- The insert: the variable bases of a promoter, between the two adapters.
create or replace macro insert_of(sequence) as substring(
    sequence,
    (select length(left_adapter) + 1 from dataset),
    length(sequence) - (select length(left_adapter) + length(right_adapter) from dataset)
);

-- The insert with `flank` bases of the plasmid on each side. The flanks include the adapters.
create or replace macro extended(sequence, flank) as
    (select right(upstream, flank) from dataset)
    || insert_of(sequence)
    || (select left(downstream, flank) from dataset);

-- The token id of the k-mer that starts at each base. The k bases are digits of a number in base 5: A is 0, C 1, G 2,
-- T 3, N 4. Ids 0 to 4 are special tokens, so 5 is added. The end of the sequence is padded with N.
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
