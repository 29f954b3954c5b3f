"""Shuffle order of an epoch: a pure function of record sizes, seed and epoch. No files, no torch.

1. The shards are permuted.
2. SHARDS_TOGETHER consecutive shards are read together, with their records permuted.
3. WINDOW_RECORDS consecutive records make a window, and the promoters of a window are permuted.

The dataset itself is in random order already (by a hash of seed and sequence), so a window is an unbiased sample of its
shards. The order does not depend on the number of ranks: they partition its global batches. How far it is from a
permutation of all promoters is measured by bench/stream/shuffle_quality.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARDS_TOGETHER = 8
"""Shards whose records are mixed, other ones each epoch: 0.5 GB at 64 MB each, which the cache of a URL holds."""
WINDOW_RECORDS = 16
"""Records shuffled together: 65,536 promoters, 25 MB of tokens at k = 3, and what a resume reads first."""


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch. records: all records in reading order; starts: promoters before each window, then all."""

    records: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    seed: int
    epoch: int
    shuffled: bool

    @property
    def windows(self) -> int:
        """Windows in the epoch."""
        return len(self.starts) - 1

    def window_of(self, row: int) -> int:
        """Find the window that holds the epoch's promoter number `row`."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def window_records(self, window: int, number: int = WINDOW_RECORDS) -> list[int]:
        """List the records of a window, or the next `number` from its first one on."""
        records: list[int] = self.records[window * WINDOW_RECORDS :][:number].tolist()
        return records

    def window_rows(self, window: int) -> npt.NDArray[np.int64]:
        """Order the window's promoters, numbered through its records end to end."""
        rows = int(self.starts[window + 1] - self.starts[window])
        if not self.shuffled:
            return np.arange(rows)
        return np.random.default_rng([self.seed, self.epoch, 1, window]).permutation(rows)


def epoch_order(record_rows: list[list[int]], seed: int, epoch: int, shuffle: bool = True) -> EpochOrder:
    """Make the order of one epoch. record_rows: promoters of each record, by shard; records are numbered through them.

    Without shuffle, promoters keep their order, whatever the seed and the epoch.
    """
    sizes = np.array([rows for shard in record_rows for rows in shard], np.int64)
    records = np.arange(len(sizes))
    if shuffle:
        rng = np.random.default_rng([seed, epoch, 0])
        by_shard = np.split(records, np.cumsum([len(shard) for shard in record_rows]))
        shards = rng.permutation(len(record_rows)).tolist()
        groups = [shards[first : first + SHARDS_TOGETHER] for first in range(0, len(shards), SHARDS_TOGETHER)]
        mixed = [rng.permutation(np.concatenate([by_shard[shard] for shard in group])) for group in groups]
        records = np.concatenate([records[:0], *mixed])
    ends = np.cumsum(np.append(0, sizes[records]))
    starts = ends[np.append(np.arange(0, len(records), WINDOW_RECORDS), len(records))]
    return EpochOrder(records, starts, seed, epoch, shuffle)


def partition(rows: int, parts: int) -> npt.NDArray[np.int64]:
    """Cut `rows` into `parts` consecutive slices whose sizes differ by at most one. Returns (parts + 1,) bounds."""
    return np.arange(parts + 1) * rows // parts
