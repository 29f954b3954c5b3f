"""The order of an epoch: a pure function of record sizes, seed and epoch. No files, no torch.

Shards are permuted; SHARDS_TOGETHER shards in a row are read together, their records permuted; WINDOW_RECORDS records
in a row make a window, and the promoters of a window are permuted together. The dataset itself is in random order
already (by a hash of seed and sequence), so a window holds an unbiased draw of its shards. The order does not depend
on the number of ranks: they deal out its global batches between them. What is left of a true permutation is measured by
bench/shuffle_quality.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARDS_TOGETHER = 8
"""Shards whose records are mixed, other ones each epoch: 0.5 GB at 64 MB each, which a cache of remote ones holds."""
WINDOW_RECORDS = 16
"""Records shuffled together: 65,536 promoters, 25 MB of tokens at k = 3, and what a resume reads first."""


@dataclass(frozen=True)
class EpochOrder:
    """records: all records in the order they are read; starts: promoters before each window, and all at the end."""

    records: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    seed: int
    epoch: int
    shuffled: bool

    @property
    def rows(self) -> int:
        """Promoters in the epoch."""
        return int(self.starts[-1])

    @property
    def windows(self) -> int:
        """Windows in the epoch."""
        return len(self.starts) - 1

    def window_of(self, row: int) -> int:
        """The window that holds the epoch's promoter number `row`."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def window_records(self, window: int) -> npt.NDArray[np.int64]:
        """Records to read for a window."""
        return self.records[window * WINDOW_RECORDS : (window + 1) * WINDOW_RECORDS]

    def records_from(self, window: int, number: int) -> npt.NDArray[np.int64]:
        """The next records from a window on."""
        return self.records[window * WINDOW_RECORDS :][:number]

    def window_rows(self, window: int) -> npt.NDArray[np.int64]:
        """Order of the window's promoters, counted through its records end to end."""
        rows = int(self.starts[window + 1] - self.starts[window])
        if not self.shuffled:
            return np.arange(rows)
        return np.random.default_rng([self.seed, self.epoch, 1, window]).permutation(rows)


def epoch_order(record_rows: list[list[int]], seed: int, epoch: int, shuffle: bool = True) -> EpochOrder:
    """The order of one epoch. record_rows: promoters of each record, by shard; records count through all shards.

    Without shuffle every promoter comes in its place, whatever the seed and the epoch.
    """
    sizes = np.array([rows for shard in record_rows for rows in shard], np.int64)
    if shuffle:
        rng = np.random.default_rng([seed, epoch, 0])
        firsts = np.cumsum([0, *(len(shard) for shard in record_rows)])
        shards = rng.permutation(len(record_rows)).tolist()
        together = [shards[at : at + SHARDS_TOGETHER] for at in range(0, len(shards), SHARDS_TOGETHER)]
        mixed = [rng.permutation(np.concatenate([np.arange(firsts[s], firsts[s + 1]) for s in g])) for g in together]
        records = np.concatenate([np.empty(0, np.int64), *mixed]).astype(np.int64)
    else:
        records = np.arange(len(sizes))
    firsts_of_windows = np.arange(0, len(records), WINDOW_RECORDS)
    per_window = np.add.reduceat(sizes[records], firsts_of_windows) if len(records) else np.empty(0, np.int64)
    return EpochOrder(records, np.concatenate([[0], np.cumsum(per_window)]).astype(np.int64), seed, epoch, shuffle)


def deal(rows: int, parts: int) -> npt.NDArray[np.int64]:
    """Bounds that cut `rows` into `parts` consecutive pieces, none more than one longer than another: (parts + 1,)."""
    return np.arange(parts + 1) * rows // parts
