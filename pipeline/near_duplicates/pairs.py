"""All pairs of near-duplicates among inserts in memory: at most d mismatches or one indel apart.

Mismatches: inserts of equal length are cut into d + 1 blocks. Two inserts that differ in at most d bases share a block
(pigeonhole principle). One indel: it lies in the first or the second half, so the other half is shared. Sorting hashes
puts the inserts that share a block into one bucket. All pairs in a bucket are compared base by base. A large bucket (a
family, a constant region) is divided again by its other bases. A pair that shares several blocks is returned for the
first one only.

Inserts are packed on one strand or on both. On both, a pair of near-duplicates is found with one of the two forward.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.near_duplicates.candidates import (
    Buckets,
    bucket_by_key,
    bucket_by_shared_key,
    cut_blocks,
    pair_between,
    pair_within,
)
from pipeline.near_duplicates.packing import Indices, Packed, Words, make_masks, mark_differences

MAX_BUCKET = 256
"""Bucket size above which dividing the bucket is cheaper than comparing all pairs of its members.

A bucket is divided once per block, and so is each part. The threshold grows by the number of blocks per level, so that
members that no block distinguishes cost little more than one comparison of all pairs.
"""
MIN_BLOCK_BASES = 4
"""Shortest block by which a bucket is divided, in bases: shorter ones do not distinguish inserts."""

Pairs = tuple[Indices, Indices]


def group_equal(inserts: Packed) -> Indices:
    """Find the first insert that equals each insert: (n,) int64 indices."""
    everyone = np.arange(len(inserts.rows))
    buckets = bucket_by_key(everyone, inserts.keys(everyone, np.arange(inserts.length)))
    members, group = buckets.members, buckets.group_numbers()
    columns = [group, *(word[members] for word in inserts.words)]  # equal hashes do not prove equal inserts
    order = np.lexsort((members, *columns))
    equal_to_previous = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    members = members[order]
    starts = np.flatnonzero(~np.concatenate([[False], equal_to_previous])) if len(members) else members
    everyone[members] = np.repeat(members[starts], np.diff([*starts, len(members)]))
    return everyone


def compare_within(
    inserts: Packed, keys: Words | None, positions: Indices, max_mismatches: int, earlier: list[Indices]
) -> Iterator[Pairs]:
    """Find the near-duplicates of equal length among distinct inserts, as pairs of indices, each once.

    keys: (n,) uint64, of the bases that are not in `positions`: only inserts with equal keys are compared; None: there
    are no other bases. earlier: pairs that are equal on one of these blocks of positions are omitted.
    """
    everyone = np.arange(len(inserts.rows))
    if keys is None:
        return _find_mismatch_pairs(inserts, everyone, None, positions, max_mismatches, earlier, MAX_BUCKET)
    buckets = bucket_by_key(everyone, keys)
    return _find_mismatch_pairs_in(buckets, inserts, positions, max_mismatches, earlier, MAX_BUCKET)


def compare_between(
    short: Packed, long: Packed, keys: tuple[Words, Words] | None, positions: Indices, earlier: list[Indices]
) -> Iterator[Pairs]:
    """Find the pairs that are one indel apart, as indices of `short` and `long`, each once; see compare_within.

    long: inserts that are one base longer than those of `short`; positions: of the short insert.
    """
    everyone = np.arange(len(short.rows)), np.arange(len(long.rows))
    if keys is None:
        return _find_indel_pairs(short, long, everyone, (None, None), positions, earlier, MAX_BUCKET)
    buckets = bucket_by_shared_key(everyone[0], keys[0], everyone[1], keys[1])
    return _find_indel_pairs_in(*buckets, short, long, positions, earlier, MAX_BUCKET)


def _find_mismatch_pairs(
    inserts: Packed,
    members: Indices,
    group: Words | None,
    positions: Indices,
    max_mismatches: int,
    earlier: list[Indices],
    max_bucket: int,
) -> Iterator[Pairs]:
    """Find pairs of members of one group that differ in at most max_mismatches bases at `positions`.

    Members of one group are equal at all other positions. earlier: position blocks that previous calls have handled. A
    pair that is equal on such a block was found by that call and is skipped. max_bucket: bucket size above which a
    bucket is divided.
    """
    blocks = cut_blocks(inserts, members, group, positions, max_mismatches + 1)
    for number, block in enumerate(blocks):
        done = [*earlier, *blocks[:number]]
        rest = np.setdiff1d(positions, block)
        buckets = bucket_by_key(members, inserts.keys(members, block, group))
        yield from _find_mismatch_pairs_in(buckets, inserts, rest, max_mismatches, done, max_bucket)
        if not len(block):
            return  # all inserts share an empty block: every pair was compared


def _find_mismatch_pairs_in(
    buckets: Buckets,
    inserts: Packed,
    rest: Indices,
    max_mismatches: int,
    done: list[Indices],
    max_bucket: int,
) -> Iterator[Pairs]:
    """Find pairs within buckets of inserts that are equal except at the positions `rest`; see _find_mismatch_pairs."""
    large = (buckets.sizes > max_bucket) & (len(rest) >= MIN_BLOCK_BASES * (max_mismatches + 1))
    for i, j in pair_within(buckets.select(~large)):
        i, j = _drop_mirrored(inserts, i, j)
        yield _drop_equal_on(done, inserts, inserts, *_select_mismatch_pairs(inserts, i, j, max_mismatches))
    if large.any():
        buckets = buckets.select(large)
        larger = max_bucket * (max_mismatches + 1)
        yield from _find_mismatch_pairs(
            inserts, buckets.members, buckets.group_numbers(), rest, max_mismatches, done, larger
        )


def _find_indel_pairs(
    short: Packed,
    long: Packed,
    members: tuple[Indices, Indices],
    group: tuple[Words | None, Words | None],
    positions: Indices,
    earlier: list[Indices],
    max_bucket: int,
) -> Iterator[Pairs]:
    """Find pairs (short, long) of members of one group that are one indel apart.

    positions: of the short insert. An indel after its first half leaves the first half unchanged. Any other indel
    leaves the second half unchanged; it begins one base later in the long insert. Others: see _find_mismatch_pairs.
    """
    larger_side = int(len(members[1]) > len(members[0]))
    first, second = cut_blocks((short, long)[larger_side], members[larger_side], group[larger_side], positions, 2)
    for block, rest, skip, done in ((first, second, 0, earlier), (second, first, 1, [*earlier, first])):
        short_keys = short.keys(members[0], block, group[0])
        long_keys = long.keys(members[1], block, group[1], skip)
        buckets = bucket_by_shared_key(members[0], short_keys, members[1], long_keys)
        yield from _find_indel_pairs_in(*buckets, short, long, rest, done, max_bucket)


def _find_indel_pairs_in(
    shorts: Buckets,
    longs: Buckets,
    short: Packed,
    long: Packed,
    rest: Indices,
    done: list[Indices],
    max_bucket: int,
) -> Iterator[Pairs]:
    """Find pairs between buckets of inserts that are equal except at the positions `rest`; see _find_indel_pairs."""
    large = (shorts.sizes * longs.sizes > max_bucket**2) & (len(rest) >= MIN_BLOCK_BASES * 2)
    for i, j in pair_between(shorts.select(~large), longs.select(~large)):
        yield _drop_equal_on(done, short, long, *_select_indel_pairs(short, long, i, j))
    if large.any():
        shorts, longs = shorts.select(large), longs.select(large)
        divided, numbers = (shorts.members, longs.members), (shorts.group_numbers(), longs.group_numbers())
        yield from _find_indel_pairs(short, long, divided, numbers, rest, done, max_bucket * 2)


def _drop_mirrored(inserts: Packed, i: Indices, j: Indices) -> Pairs:
    """Drop pairs that occur once more with both strands exchanged, and pairs of an insert with itself."""
    if inserts.reverse is None:
        return i, j
    first, second = inserts.reverse[i], inserts.reverse[j]
    forward_row = np.where(first, inserts.rows[j], inserts.rows[i])
    reverse_row = np.where(first, inserts.rows[i], inserts.rows[j])
    kept = ~(first & second) & ((first == second) | (forward_row < reverse_row))
    return i[kept], j[kept]


def _select_mismatch_pairs(inserts: Packed, i: Indices, j: Indices, max_mismatches: int) -> Pairs:
    """Select the pairs with at most max_mismatches mismatches."""
    count = np.zeros(len(i), np.int64)
    for number in range(len(inserts.words)):
        count += np.bitwise_count(mark_differences(inserts.word(number, i), inserts.word(number, j)))
        near = count <= max_mismatches
        if not near.all():
            i, j, count = i[near], j[near], count[near]
    return i, j


def _select_indel_pairs(short: Packed, long: Packed, i: Indices, j: Indices) -> Pairs:
    """Select the pairs (short, long) that are one indel apart.

    In such a pair, from the first difference on, base i of the short insert is base i + 1 of the long insert.
    """
    differed = np.zeros(len(i), bool)
    for number in range(len(short.words)):
        word = short.word(number, i)
        own = mark_differences(word, long.word(number, j))
        following = word ^ long.word(number, j, skip=1)
        # All bits below the first difference, or all bits if there is none.
        below = (own & (~own + np.uint64(1))) - np.uint64(1)
        below[differed] = 0
        near = (following & ~below) == 0
        differed |= own != 0
        if not near.all():
            i, j, differed = i[near], j[near], differed[near]
    return i, j


def _drop_equal_on(blocks: list[Indices], left: Packed, right: Packed, i: Indices, j: Indices) -> Pairs:
    """Drop the pairs that are equal on any of the blocks."""
    for block in blocks:
        differ = np.zeros(len(i), bool)
        for number, mask in make_masks(block):
            differ |= ((left.word(number, i) ^ right.word(number, j)) & mask) != 0
        i, j = i[differ], j[differ]
    return i, j
