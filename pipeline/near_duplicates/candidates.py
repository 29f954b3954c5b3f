"""Find candidate pairs: cut inserts into blocks, and pair those that share a block, in chunks of bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from pipeline.near_duplicates.packing import BASES, BITS, Indices, Packed, Words, differing_bases

SAMPLE = 1 << 14
"""Pairs of inserts from which the information of a position is estimated."""
CHUNK = 1 << 17
"""Candidate pairs per chunk. The pairs of one insert are not divided: a chunk may exceed it by one bucket's size."""


@dataclass(frozen=True)
class Buckets:
    """Bucket b holds members[starts[b] : starts[b] + sizes[b]], which share a key."""

    members: Indices
    sizes: Indices

    @cached_property
    def starts(self) -> Indices:
        """The place of each bucket's first member."""
        starts: Indices = np.cumsum(self.sizes) - self.sizes
        return starts

    def select(self, which: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> "Buckets":
        """Select buckets by a boolean mask."""
        sizes = self.sizes[which]
        return Buckets(self.members[ranges(self.starts[which], sizes)], sizes)

    def labels(self) -> Words:
        """The bucket number of each member."""
        return np.repeat(np.arange(len(self.sizes), dtype=np.uint64), self.sizes)


def ranges(starts: Indices, sizes: Indices) -> Indices:
    """Concatenate the ranges starts[i] .. starts[i] + sizes[i] - 1: (sum of sizes,)."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))


def buckets_of(at: Indices, keys: Words) -> Buckets:
    """Group members `at` by equal keys; members with a unique key are left out."""
    order = np.argsort(keys)
    equal = keys[order]
    equal_to_next = equal[1:] == equal[:-1]
    starts = np.flatnonzero(equal_to_next & ~np.concatenate([[False], equal_to_next[:-1]]))
    lasts = np.flatnonzero(equal_to_next & ~np.concatenate([equal_to_next[1:], [False]])) + 1
    sizes = lasts - starts + 1
    return Buckets(at[order[ranges(starts, sizes)]], sizes)


def shared_buckets(left_at: Indices, left_keys: Words, right_at: Indices, right_keys: Words) -> tuple[Buckets, Buckets]:
    """Group the members of two sides by the keys that both sides have: bucket b of the left and of the right."""
    left_order, right_order = np.argsort(left_keys), np.argsort(right_keys)
    left_keys, right_keys = left_keys[left_order], right_keys[right_order]
    first = np.searchsorted(right_keys, left_keys)
    shared = np.flatnonzero(first < len(right_keys))
    shared = shared[right_keys[first[shared]] == left_keys[shared]]
    keys, sizes = np.unique(left_keys[shared], return_counts=True)
    left = Buckets(left_at[left_order[shared]], sizes)
    starts = np.searchsorted(right_keys, keys)
    sizes = np.searchsorted(right_keys, keys, side="right") - starts
    return left, Buckets(right_at[right_order[ranges(starts, sizes)]], sizes)


def pairs_within(buckets: Buckets) -> Iterator[tuple[Indices, Indices]]:
    """Iterate over all pairs of members of a bucket once, in chunks."""
    places = np.arange(len(buckets.members))
    ends = np.repeat(buckets.starts + buckets.sizes, buckets.sizes)
    for place, partner in _chunks(places, places + 1, ends - places - 1):
        yield buckets.members[place], buckets.members[partner]


def pairs_between(left: Buckets, right: Buckets) -> Iterator[tuple[Indices, Indices]]:
    """Iterate over all pairs of a member of a left bucket and one of its right bucket, in chunks."""
    places = np.arange(len(left.members))
    for place, partner in _chunks(places, np.repeat(right.starts, left.sizes), np.repeat(right.sizes, left.sizes)):
        yield left.members[place], right.members[partner]


def _chunks(places: Indices, first: Indices, counts: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Pair each place with first, first + 1, ... (counts of them), in chunks."""
    cuts = np.flatnonzero(np.diff(np.cumsum(counts) // CHUNK)) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(places)]):
        some = slice(start, stop)
        yield np.repeat(places[some], counts[some]), ranges(first[some], counts[some])


def cut_blocks(these: Packed, at: Indices, label: Words | None, positions: Indices, number: int) -> list[Indices]:
    """Cut ascending positions into consecutive blocks that two inserts are about equally unlikely to share by chance.

    at: the inserts; label: one per insert, or None; only inserts of one label are compared. No block is empty if there
    are at least as many positions as blocks. Any cut finds the same pairs; this one gives few candidates. With blocks
    of equal length, all inserts of an assay with a constant region would share some.
    """
    if len(positions) <= number:
        return np.array_split(positions, number)
    information = np.cumsum(_information(these, at, label, positions))
    smallest = np.arange(1, number)  # so that no block is empty
    equal_shares = information[-1] * smallest / number
    cuts = np.maximum.accumulate(np.searchsorted(information, equal_shares) + 1 - smallest) + smallest
    cuts = np.clip(cuts, smallest, len(positions) - number + smallest)
    return np.split(positions, cuts)


def _information(these: Packed, at: Indices, label: Words | None, positions: Indices) -> np.ndarray:
    """Estimate -log of the share of pairs that are equal at each position, from a sample of consecutive members."""
    first = np.arange(0, len(at) - 1, max(1, len(at) // SAMPLE))
    if label is not None:
        first = first[label[first] == label[first + 1]]
    equal = np.full(len(positions), 1 + len(first))
    for number in np.unique(positions // BASES):
        here = np.flatnonzero(positions // BASES == number)
        differ = differing_bases(these.word(number, at[first]), these.word(number, at[first + 1]))
        bits = (positions[here] % BASES * BITS).astype(np.uint64)
        equal[here] -= np.count_nonzero(differ[:, None] >> bits & np.uint64(1), axis=0)
    return -np.log(equal / (2 + len(first)))
