"""Candidate pairs: inserts are cut into blocks, and those that share a block are paired, in chunks of bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from pipeline.near_duplicates.packing import BASES, BITS, Indices, Packed, Words, mark_differences

SAMPLE = 1 << 14
"""Pairs of inserts from which the information per position is estimated."""
CHUNK = 1 << 17
"""Candidate pairs per chunk. The pairs of one insert stay together, so a chunk may exceed this by one bucket's size."""


@dataclass(frozen=True)
class Buckets:
    """Inserts that share a key: bucket b holds members[starts[b] : starts[b] + sizes[b]].

    members: (sum of sizes,) int64 indices of inserts; sizes: (buckets,) int64.
    """

    members: Indices
    sizes: Indices

    @cached_property
    def starts(self) -> Indices:
        """Index in `members` of each bucket's first member: (buckets,) int64."""
        starts: Indices = np.cumsum(self.sizes) - self.sizes
        return starts

    def select(self, which: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> "Buckets":
        """Select buckets by a boolean mask: (buckets,)."""
        sizes = self.sizes[which]
        return Buckets(self.members[join_ranges(self.starts[which], sizes)], sizes)

    def group_numbers(self) -> Words:
        """Repeat the number of each bucket per member: (members,) uint64."""
        return np.repeat(np.arange(len(self.sizes), dtype=np.uint64), self.sizes)


def join_ranges(starts: Indices, sizes: Indices) -> Indices:
    """Concatenate the ranges from starts[i] to starts[i] + sizes[i] - 1: (sum of sizes,) int64."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))


def bucket_by_key(members: Indices, keys: Words) -> Buckets:
    """Bucket members by equal keys. Members with a unique key are dropped.

    members: (n,) int64; keys: (n,) uint64.
    """
    order = np.argsort(keys)
    equal = keys[order]
    equal_to_next = equal[1:] == equal[:-1]
    starts = np.flatnonzero(equal_to_next & ~np.concatenate([[False], equal_to_next[:-1]]))
    lasts = np.flatnonzero(equal_to_next & ~np.concatenate([equal_to_next[1:], [False]])) + 1
    sizes = lasts - starts + 1
    return Buckets(members[order[join_ranges(starts, sizes)]], sizes)


def bucket_by_shared_key(
    left_members: Indices, left_keys: Words, right_members: Indices, right_keys: Words
) -> tuple[Buckets, Buckets]:
    """Bucket the members of two sides by the keys that occur on both; bucket b has the same key on either side.

    left_members, left_keys: (n,) int64 and uint64; right_members, right_keys: (m,) likewise.
    """
    left_order, right_order = np.argsort(left_keys), np.argsort(right_keys)
    left_keys, right_keys = left_keys[left_order], right_keys[right_order]
    first = np.searchsorted(right_keys, left_keys)
    shared = np.flatnonzero(first < len(right_keys))
    shared = shared[right_keys[first[shared]] == left_keys[shared]]
    keys, sizes = np.unique(left_keys[shared], return_counts=True)
    left = Buckets(left_members[left_order[shared]], sizes)
    starts = np.searchsorted(right_keys, keys)
    sizes = np.searchsorted(right_keys, keys, side="right") - starts
    return left, Buckets(right_members[right_order[join_ranges(starts, sizes)]], sizes)


def pair_within(buckets: Buckets) -> Iterator[tuple[Indices, Indices]]:
    """Pair the members within each bucket; yields every pair once, in chunks of two (pairs,) int64 arrays."""
    places = np.arange(len(buckets.members))
    ends = np.repeat(buckets.starts + buckets.sizes, buckets.sizes)
    for place, partner in _chunks(places, places + 1, ends - places - 1):
        yield buckets.members[place], buckets.members[partner]


def pair_between(left: Buckets, right: Buckets) -> Iterator[tuple[Indices, Indices]]:
    """Pair the members of left bucket b with those of right bucket b, in chunks of two (pairs,) int64 arrays."""
    places = np.arange(len(left.members))
    for place, partner in _chunks(places, np.repeat(right.starts, left.sizes), np.repeat(right.sizes, left.sizes)):
        yield left.members[place], right.members[partner]


def _chunks(places: Indices, first: Indices, counts: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Pair places[i] with first[i] to first[i] + counts[i] - 1, in chunks."""
    cuts = np.flatnonzero(np.diff(np.cumsum(counts) // CHUNK)) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(places)]):
        chunk = slice(start, stop)
        yield np.repeat(places[chunk], counts[chunk]), join_ranges(first[chunk], counts[chunk])


def cut_blocks(
    inserts: Packed, members: Indices, group: Words | None, positions: Indices, number: int
) -> list[Indices]:
    """Cut ascending positions into `number` consecutive blocks of about equal information.

    Two random inserts share each block with about the same probability, so there are few candidates. Any other cut
    finds the same pairs. With blocks of equal length, all inserts of an assay with a constant region would share one.
    members: (n,) int64 indices of inserts; group: (n,) uint64 or None, only inserts of equal groups are compared;
    positions: (p,) int64. No block is empty if p is at least `number`.
    """
    if len(positions) <= number:
        return np.array_split(positions, number)
    information = np.cumsum(_estimate_information(inserts, members, group, positions))
    smallest = np.arange(1, number)  # the earliest cuts without an empty block
    equal_shares = information[-1] * smallest / number
    cuts = np.maximum.accumulate(np.searchsorted(information, equal_shares) + 1 - smallest) + smallest
    cuts = np.clip(cuts, smallest, len(positions) - number + smallest)
    return np.split(positions, cuts)


def _estimate_information(inserts: Packed, members: Indices, group: Words | None, positions: Indices) -> np.ndarray:
    """Estimate the information per position: -log(fraction of equal pairs), from a sample of consecutive members.

    Returns (positions,) float64.
    """
    first = np.arange(0, len(members) - 1, max(1, len(members) // SAMPLE))
    if group is not None:
        first = first[group[first] == group[first + 1]]
    equal = np.full(len(positions), 1 + len(first))
    for number in np.unique(positions // BASES):
        bases = np.flatnonzero(positions // BASES == number)
        differ = mark_differences(inserts.word(number, members[first]), inserts.word(number, members[first + 1]))
        bits = (positions[bases] % BASES * BITS).astype(np.uint64)
        equal[bases] -= np.count_nonzero(differ[:, None] >> bits & np.uint64(1), axis=0)
    return -np.log(equal / (2 + len(first)))
