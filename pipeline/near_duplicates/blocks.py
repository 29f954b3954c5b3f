"""Positions of inserts cut into blocks that two inserts are about equally unlikely to share by chance."""

import numpy as np

from pipeline.near_duplicates.packing import BASES, BITS, Indices, Packed, Words, differing_bases

SAMPLE = 1 << 14
"""Pairs of inserts that the cuts are judged by."""


def cut_blocks(these: Packed, at: Indices, label: Words | None, positions: Indices, number: int) -> list[Indices]:
    """`positions`, ascending, as consecutive blocks; none is empty where there are as many positions as blocks.

    at: the inserts; label: one for each of them, or None; only inserts of one label are to be told apart. Were the
    blocks cut by length, an assay with a constant region would have blocks that all of its inserts share. Any cut
    finds the same pairs: this one has the fewest to compare.
    """
    if len(positions) <= number:
        return np.array_split(positions, number)
    information = np.cumsum(_information(these, at, label, positions))
    wanted = information[-1] * np.arange(1, number) / number
    smallest = np.arange(1, number)  # so that no block is empty
    cuts = np.maximum.accumulate(np.searchsorted(information, wanted) + 1 - smallest) + smallest
    cuts = np.clip(cuts, smallest, len(positions) - number + smallest)
    return np.split(positions, cuts)


def _information(these: Packed, at: Indices, label: Words | None, positions: Indices) -> np.ndarray:
    """-log of the share of pairs that are equal in a position, from a sample of members that follow each other."""
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
