"""Order of an epoch in lanes: a pure function of shard sizes, seed, epoch and global batch, without files or torch.

1. The shards are permuted.
2. Their promoters, in this order, are cut into lanes with equal numbers of steps. Each global batch takes the next
   `quota` promoters of every lane. So a rank reads only the lanes of its slice, and a resume is one search per lane.
3. Within a lane, the records of a few consecutive shards are permuted together.
4. Within a lane, the promoters of a few consecutive records, a window, are permuted.

All lanes together mix about WINDOW_RECORDS records, or more, at any time. The rows of the dataset
are in random order already (by a hash of seed and sequence), so a window is an unbiased sample of its shards. The order
does not depend on the number of ranks. With a single lane it does not depend on the global batch either.
bench/stream/shuffle_quality.py measures how close the order is to a permutation of all promoters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARDS_TOGETHER = 8
"""Shards whose records a single lane permutes together: 0.5 GB at 64 MB each. The cache of a URL must hold them."""
WINDOW_RECORDS = 16
"""Records per window of a single lane: 65,536 promoters, 25 MB of tokens at k = 3. Several lanes divide them."""
LANES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96, 192, 384, 768)
"""Numbers of lanes: with many divisors, so that the slices of most numbers of ranks end at lanes."""
LANE_ROWS, STORED_LANE_ROWS = 65_536, 16_384
"""Least number of promoters per lane: of a shuffled epoch, and of one in stored order, which has no quality to keep."""

Bounds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lane:
    """Promoters of an epoch of which every global batch takes the next `quota`.

    pieces: (pieces, 5) int64, in reading order: shard, record of the shard, first and end row of the record, and row of
    the shard at which the piece begins; windows: (windows + 1,) int64, first piece of each window, then the number of
    pieces; starts: (windows + 1,) int64, promoters of the lane before each window, then all; seed, epoch: of the order;
    seed is None in stored order.
    """

    number: int
    quota: int
    pieces: Bounds
    windows: Bounds
    starts: Bounds
    seed: int | None
    epoch: int

    def __len__(self) -> int:
        return int(self.starts[-1])

    def find_window(self, row: int) -> int:
        """Find the window that contains promoter number `row` of the lane."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def window_pieces(self, window: int) -> Bounds:
        """Select the pieces of a window: (n, 5) int64."""
        return self.pieces[self.windows[window] : self.windows[window + 1]]

    def window_rows(self, window: int) -> Bounds:
        """Permute the promoters of a window, whose numbers run through its pieces: (rows,) int64."""
        rows = int(self.starts[window + 1] - self.starts[window])
        if self.seed is None:
            return np.arange(rows)
        return np.random.default_rng([self.seed, self.epoch, 1, (self.number << 32) + window]).permutation(rows)


class EpochOrder:
    """Order of one epoch. Its lanes are computed on demand, each from the shards that it overlaps.

    shard_rows: (shards,) promoters per shard; record_rows: shard -> promoters of its records; lanes: their number.
    Without shuffle, every lane is in the order of the dataset, for any seed and epoch.
    """

    def __init__(
        self,
        shard_rows: Sequence[int],
        record_rows: Callable[[int], Sequence[int]],
        seed: int,
        epoch: int,
        global_batch: int,
        lanes: int,
        shuffle: bool = True,
    ) -> None:
        self.bounds = partition(global_batch, lanes)
        """Columns of a global batch per lane: lane i fills bounds[i] to bounds[i + 1]."""
        rows = np.array(shard_rows, np.int64)
        self.rows = int(rows.sum())
        self._seed, self._epoch, self._shuffle = seed, epoch, shuffle
        self._shards = (
            np.random.default_rng([seed, epoch, 0]).permutation(len(rows)) if shuffle else np.arange(len(rows))
        )
        self._ends = np.cumsum(rows[self._shards])
        self._begins = self._ends - rows[self._shards]
        self._record_rows = record_rows
        self._cuts = self.rows // global_batch * self.bounds
        self._cuts[-1] = self.rows  # the short last batch is the end of the last lane

    @property
    def lanes(self) -> int:
        """Count the lanes."""
        return len(self.bounds) - 1

    def lane(self, number: int) -> Lane:
        """Compute a lane."""
        begin, end = int(self._cuts[number]), int(self._cuts[number + 1])
        first = int(np.searchsorted(self._ends, begin, side="right"))
        last = int(np.searchsorted(self._begins, end, side="left"))
        together = max(SHARDS_TOGETHER // self.lanes, 2)
        random = self._make_generator(number)
        groups = []
        for start in range(first, last, together):
            pieces = np.concatenate(
                [self._cut_shard(at, begin, end) for at in range(start, min(start + together, last))]
            )
            groups.append(pieces[random.permutation(len(pieces))] if self._shuffle else pieces)
        pieces = np.concatenate([np.empty((0, 5), np.int64), *groups])
        return self._make_lane(number, pieces)

    def _make_generator(self, lane: int) -> np.random.Generator:
        """Make the generator that permutes the records of a lane."""
        if lane:
            return np.random.default_rng([self._seed, self._epoch, 0, lane])
        random = np.random.default_rng([self._seed, self._epoch, 0])
        random.permutation(len(self._shards))  # the first lane continues with the generator of the shards
        return random

    def _cut_shard(self, at: int, begin: int, end: int) -> Bounds:
        """List the pieces of shard number `at` of the epoch between two promoters of the epoch: (n, 5)."""
        shard, sizes = int(self._shards[at]), np.array(self._record_rows(int(self._shards[at])), np.int64)
        starts = np.cumsum(sizes) - sizes
        firsts = np.maximum(begin - self._begins[at] - starts, 0)
        ends = np.minimum(end - self._begins[at] - starts, sizes)
        pieces = np.stack([np.full(len(sizes), shard), np.arange(len(sizes)), firsts, ends, starts + firsts], axis=1)
        own: Bounds = pieces[firsts < ends]
        return own

    def _make_lane(self, number: int, pieces: Bounds) -> Lane:
        """Divide the pieces of a lane into windows."""
        size = -(-WINDOW_RECORDS // self.lanes)
        windows = np.append(np.arange(0, len(pieces), size), len(pieces))
        if self.lanes > 1 and len(pieces):
            # Each lane shortens its first window by another share, so that lanes change windows at different steps.
            ends = np.cumsum(pieces[:size, 3] - pieces[:size, 2])
            cut = int(ends[-1]) * (number + 1) // (self.lanes + 1)
            piece = int(np.searchsorted(ends, cut, side="right"))
            before, after = pieces[[piece, piece]]
            before[3] = after[2] = pieces[piece, 3] - (ends[piece] - cut)
            after[4] += after[2] - before[2]
            split = [row for row in (before, after) if row[2] < row[3]]
            pieces = np.concatenate([pieces[:piece], split, pieces[piece + 1 :]])
            more = len(split) - 1
            windows = np.unique(np.concatenate([[0, piece + more], windows[1:] + more]))
        rows = np.cumsum(np.append(0, pieces[:, 3] - pieces[:, 2]))
        seed = self._seed if self._shuffle else None
        return Lane(number, int(np.diff(self.bounds)[number]), pieces, windows, rows[windows], seed, self._epoch)


def count_lanes(rows: int, global_batch: int, shuffle: bool = True) -> int:
    """Choose the number of lanes of a split of `rows` promoters."""
    if rows < global_batch:
        return 1  # no whole global batch
    most = min(global_batch, rows // (LANE_ROWS if shuffle else STORED_LANE_ROWS))
    return max(lanes for lanes in LANES if lanes <= max(most, 1))


def partition(rows: int, parts: int) -> Bounds:
    """Partition `rows` into `parts` consecutive slices whose sizes differ by at most one.

    Returns the bounds of the slices: (parts + 1,) int64.
    """
    return np.arange(parts + 1) * rows // parts
