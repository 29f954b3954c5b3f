"""Count held-out rows that are related to training rows."""

from enum import IntFlag

import numpy as np
import numpy.typing as npt

from pipeline.near_duplicates.candidates import Buckets
from pipeline.near_duplicates.search import Equal, Near


class Split(IntFlag):
    """The split of a row, or the splits of equal rows."""

    UNUSED = 0
    HELD_OUT = 1
    TRAIN = 2


class LeakCounter:
    """Held-out rows with relations to training rows, counted as the relations are found.

    Memory: 9 bytes per row below 2^31 rows, else 13.

    splits: (rows,) uint8, values of Split.
    """

    def __init__(self, splits: npt.NDArray[np.uint8]) -> None:
        """Start without relations."""
        self._splits = splits
        self._all_splits = splits.copy()  # at the first row of each insert: the splits of all its rows
        self._first = np.arange(len(splits), dtype=np.int32 if len(splits) < 1 << 31 else np.int64)
        self._near, self._reverse, self._run = (np.zeros(len(splits), bool) for _ in range(3))

    def add(self, relation: Equal | Near) -> None:
        """Add equal rows or pairs of near-duplicates, in the order of search.find_near_duplicates."""
        if isinstance(relation, Near):
            for own, other in ((relation.i, relation.j), (relation.j, relation.i)):
                self._near[own[(self._all_splits[other] & Split.TRAIN) > 0]] = True
            return
        rows, first, flipped = relation.rows, relation.first, relation.flipped
        self._first[rows] = first
        np.bitwise_or.at(self._all_splits, first, self._splits[rows])
        trained = (self._splits[rows] & Split.TRAIN) > 0
        for strand in (False, True):
            of_train = np.unique(first[trained & (flipped != strand)])
            own = flipped == strand
            self._reverse[rows[own][np.isin(first[own], of_train)]] = True

    def add_runs(self, buckets: Buckets) -> None:
        """Add runs that several rows share."""
        trained = (self._splits[buckets.members] & Split.TRAIN) > 0
        if len(trained):
            shared = buckets.select(np.logical_or.reduceat(trained, buckets.starts))
            self._run[shared.members] = True

    def near_duplicates(self) -> int:
        """Count held-out rows with an equal insert or a near-duplicate in training, on either strand."""
        leaks = self._near | ((self._all_splits & Split.TRAIN) > 0)
        return self._count(leaks[self._first])

    def reverse_complements(self) -> int:
        """Count held-out rows whose reverse complement is in training."""
        return self._count(self._reverse)

    def shared_runs(self) -> int:
        """Count held-out rows that share a run with a training row."""
        return self._count(self._run)

    def _count(self, leaks: npt.NDArray[np.bool_]) -> int:
        return int(np.count_nonzero(leaks & (self._splits == Split.HELD_OUT)))
