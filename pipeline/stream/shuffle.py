"""Shuffle of an epoch: a pure function of record sizes, seed and epoch, without files or torch.

1. The shards are permuted.
2. The records of SHARDS_TOGETHER consecutive shards are permuted together.
3. The promoters of WINDOW_RECORDS consecutive records, a window, are permuted.

The rows of the dataset are in random order already (by a hash of seed and sequence), so a window is an unbiased sample
of its shards. The order does not depend on the number of ranks, which partition each global batch.
bench/stream/shuffle_quality.py measures how close the order is to a permutation of all promoters.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARDS_TOGETHER = 8
"""Shards whose records are permuted together: 0.5 GB at 64 MB each. The cache of a URL must hold them."""
WINDOW_RECORDS = 16
"""Records per window: 65,536 promoters, 25 MB of tokens at k = 3. A resume begins with one window."""


@dataclass(frozen=True)
class EpochOrder:
    """Order of one epoch.

    records: (records,) int64, record numbers in reading order; starts: (windows + 1,) int64, promoters before each
    window, then all promoters; shuffled: False keeps the order of the dataset.
    """

    records: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    seed: int
    epoch: int
    shuffled: bool

    @property
    def windows(self) -> int:
        """Count the windows of the epoch."""
        return len(self.starts) - 1

    def window_of(self, row: int) -> int:
        """Find the window that contains promoter number `row` of the epoch."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def window_records(self, window: int, number: int = WINDOW_RECORDS) -> list[int]:
        """List the records of a window, or `number` records from its first one."""
        records: list[int] = self.records[window * WINDOW_RECORDS :][:number].tolist()
        return records

    def window_rows(self, window: int) -> npt.NDArray[np.int64]:
        """Permute the promoters of a window, whose numbers run through its records: (rows,) int64."""
        rows = int(self.starts[window + 1] - self.starts[window])
        if not self.shuffled:
            return np.arange(rows)
        return np.random.default_rng([self.seed, self.epoch, 1, window]).permutation(rows)


def make_epoch_order(record_rows: list[list[int]], seed: int, epoch: int, shuffle: bool = True) -> EpochOrder:
    """Make the order of one epoch.

    record_rows: promoters per record, by shard; record numbers run through all shards. Without shuffle, promoters keep
    the order of the dataset, for any seed and epoch.
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
    """Partition `rows` into `parts` consecutive slices whose sizes differ by at most one.

    Returns the bounds of the slices: (parts + 1,) int64.
    """
    return np.arange(parts + 1) * rows // parts
