"""Find all pairs of near-duplicates among millions of inserts: within d mismatches or one indel of each other.

Mismatches: inserts of equal length are cut into d + 1 blocks; two that differ in at most d bases share a block
(pigeonhole). One indel: the base is deleted from the first or the second half, so the other half is shared. Inserts
that share a block are in one bucket, found by sorting hashes, and every two in a bucket are compared base by base. A
large bucket (a family, a constant region) is divided again by the rest of its bases. A pair that shares several blocks
is found in each and returned for the first.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.near_duplicates.candidates import buckets_of, cut_blocks, pairs_between, pairs_within, shared_buckets
from pipeline.near_duplicates.packing import Indices, Packed, Words, differing_bases, pack, position_masks

LARGE = 256
"""Bucket size above which dividing the bucket is cheaper than comparing every two of its members.

A bucket is divided once per block, and each part again: so the threshold grows by that factor per level, and members
that no block distinguishes cost little more than comparing them at once.
"""
FEWEST = 4
"""Bases in a block below which a bucket is not divided: too few to distinguish inserts."""

Pairs = tuple[Indices, Indices]


def pair_chunks(inserts: pa.ChunkedArray | pa.Array, max_mismatches: int = 2) -> Iterator[Pairs]:
    """Find all pairs of near-duplicate inserts, each once, in unordered chunks: arrays of row numbers i < j.

    Near-duplicates are equally long and differ in 1 to max_mismatches bases (Hamming distance), or become equal when
    one base is deleted from the longer one. Equal inserts count as one, represented by the first of their rows.
    inserts: strings over ACGTN of any length, 0 included; max_mismatches: 0 to about 4, beyond which blocks are so
    short that most inserts share one. Raises UserError for other letters or nulls, and for a negative max_mismatches.

    Memory beside the column: 100 bytes per insert of 80 bases if few are similar, up to 170 if all are. A chunk holds
    at most candidates.CHUNK pairs and those of one insert.
    """
    if max_mismatches < 0:
        raise UserError(f"{max_mismatches} mismatches: expected 0 or more")
    pairs = _pair_chunks(pack(inserts), max_mismatches)
    return ((np.minimum(i, j), np.maximum(i, j)) for i, j in pairs)


def _pair_chunks(packed: dict[int, Packed], max_mismatches: int) -> Iterator[Pairs]:
    shorter, shorter_at = None, np.empty(0, np.int64)
    for length, these in packed.items():
        at, positions = _distinct(these), np.arange(length)
        for i, j in _within_mismatches(these, at, None, positions, max_mismatches, [], LARGE):
            yield these.rows[i], these.rows[j]
        if shorter is not None and shorter.length == length - 1:
            for i, j in _one_indel(shorter, these, (shorter_at, at), (None, None), positions[:-1], [], LARGE):
                yield shorter.rows[i], these.rows[j]
        shorter, shorter_at = these, at


def _distinct(these: Packed) -> Indices:
    """Select the first of equal inserts, and all unique ones: ascending."""
    keys = these.keys(np.arange(len(these.rows)), np.arange(these.length))
    buckets = buckets_of(np.arange(len(these.rows)), keys)
    at, label = buckets.members, buckets.labels()
    columns = [label, *(word[at] for word in these.words)]  # the label alone would trust the hash
    order = np.lexsort((at, *columns))
    equal_to_previous = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    first = np.ones(len(these.rows), bool)
    first[at[order][1:][equal_to_previous]] = False
    return np.flatnonzero(first)


def _within_mismatches(
    these: Packed,
    at: Indices,
    label: Words | None,
    positions: Indices,
    most: int,
    earlier: list[Indices],
    bound: int,
) -> Iterator[Pairs]:
    """Find pairs of the inserts `at` within `most` mismatches that share a label, which covers all but `positions`.

    earlier: blocks of other calls, which find the pairs that are equal on one of them. bound: the bucket size above
    which a bucket is divided.
    """
    blocks = cut_blocks(these, at, label, positions, most + 1)
    for number, block in enumerate(blocks):
        done = [*earlier, *blocks[:number]]
        rest = np.setdiff1d(positions, block)
        buckets = buckets_of(at, these.keys(at, block, label))
        large = (buckets.sizes > bound) & (len(rest) >= FEWEST * (most + 1))
        for i, j in pairs_within(buckets.select(~large)):
            yield _not_equal_on(done, these, these, *_verified_mismatches(these, i, j, most))
        if large.any():
            buckets = buckets.select(large)
            larger = bound * (most + 1)
            yield from _within_mismatches(these, buckets.members, buckets.labels(), rest, most, done, larger)
        if not len(block):
            return  # all inserts share an empty block, so every pair is done


def _one_indel(
    short: Packed,
    long: Packed,
    at: tuple[Indices, Indices],
    label: tuple[Words | None, Words | None],
    positions: Indices,
    earlier: list[Indices],
    bound: int,
) -> Iterator[Pairs]:
    """Find pairs (short, long) of the inserts `at` that are one indel apart and share a label, as _within_mismatches.

    positions: of the short one. An indel after its first half leaves the first half unchanged. Any other leaves the
    second half, which begins one base later in the long one.
    """
    more = int(len(at[1]) > len(at[0]))
    first, second = cut_blocks((short, long)[more], at[more], label[more], positions, 2)
    for block, rest, skip, done in ((first, second, 0, earlier), (second, first, 1, [*earlier, first])):
        short_keys = short.keys(at[0], block, label[0])
        long_keys = long.keys(at[1], block, label[1], skip)
        shorts, longs = shared_buckets(at[0], short_keys, at[1], long_keys)
        large = (shorts.sizes * longs.sizes > bound**2) & (len(rest) >= FEWEST * 2)
        for i, j in pairs_between(shorts.select(~large), longs.select(~large)):
            yield _not_equal_on(done, short, long, *_verified_indel(short, long, i, j))
        if large.any():
            shorts, longs = shorts.select(large), longs.select(large)
            members, labels = (shorts.members, longs.members), (shorts.labels(), longs.labels())
            yield from _one_indel(short, long, members, labels, rest, done, bound * 2)


def _verified_mismatches(these: Packed, i: Indices, j: Indices, most: int) -> Pairs:
    """Select the pairs that are within `most` mismatches."""
    count = np.zeros(len(i), np.int64)
    for number in range(len(these.words)):
        count += np.bitwise_count(differing_bases(these.word(number, i), these.word(number, j)))
        near = count <= most
        if not near.all():
            i, j, count = i[near], j[near], count[near]
    return i, j


def _verified_indel(short: Packed, long: Packed, i: Indices, j: Indices) -> Pairs:
    """Select the pairs (short, long) that are one indel apart.

    In such a pair, from the first base on that differs, the bases of the short one are the next bases of the long one.
    """
    differed = np.zeros(len(i), bool)
    for number in range(len(short.words)):
        word = short.word(number, i)
        own = differing_bases(word, long.word(number, j))
        following = word ^ long.word(number, j, skip=1)
        # All bits below the first base that differs, or all bits if none does.
        below = (own & (~own + np.uint64(1))) - np.uint64(1)
        below[differed] = 0
        near = (following & ~below) == 0
        differed |= own != 0
        if not near.all():
            i, j, differed = i[near], j[near], differed[near]
    return i, j


def _not_equal_on(blocks: list[Indices], left: Packed, right: Packed, i: Indices, j: Indices) -> Pairs:
    """Select the pairs that differ on every block."""
    for block in blocks:
        differ = np.zeros(len(i), bool)
        for number, mask in position_masks(block):
            differ |= ((left.word(number, i) ^ right.word(number, j)) & mask) != 0
        i, j = i[differ], j[differ]
    return i, j
