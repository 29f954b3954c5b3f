"""Reader of windows: records that are shuffled together, in memory, each checked against the index."""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.shards.index import ShardEntry
from pipeline.shards.records import Record, check_record
from pipeline.stream.sources import ShardSource
from pipeline.tokens.kmers import Ids, Numbers
from pipeline.tokens.padding import round_up_width


@dataclass(frozen=True)
class Window:
    """Promoters of some records. Promoter i is values[starts[i] : starts[i] + lengths[i]].

    values: (ids,), one id per base, with space after the last promoter for the width of the longest; starts, lengths,
    id, position: (rows,) int64; expression: float32, (rows,) or (rows, labels) for several labels. position: index of
    the promoter in its split.
    """

    values: Ids
    starts: Numbers
    lengths: Numbers
    expression: npt.NDArray[np.float32]
    id: Numbers
    position: Numbers

    def __len__(self) -> int:
        return len(self.id)

    def rows(self, which: slice | Numbers) -> "Window":
        """Select or reorder promoters by a slice or by indices, (n,). `values` is shared."""
        return replace(
            self,
            starts=self.starts[which],
            lengths=self.lengths[which],
            expression=self.expression[which],
            id=self.id[which],
            position=self.position[which],
        )


class RecordReader:
    """Reader of the records of a split. Their numbers run through all shards of the split."""

    def __init__(self, source: ShardSource, shards: Sequence[ShardEntry], k: int, labels: int | None = None) -> None:
        self._source, self._k, self._labels = source, k, labels
        self._records = [(shard, number) for shard in shards for number in range(len(shard.records))]
        self._first_positions = [0, *accumulate(record.rows for shard in shards for record in shard.records)]

    def prefetch(self, numbers: Sequence[int]) -> None:
        """Prefetch the shards of records that will be read soon, in this order."""
        self._source.prefetch(list(self._shards(numbers).values()))

    def read_window(self, numbers: Sequence[int], threads: Executor) -> Window:
        """Read and check records in parallel. Raises UserError if one is missing or corrupt."""
        with contextlib.ExitStack() as stack:
            # An open file stays readable if another process removes it from the cache.
            files = {
                name: stack.enter_context(self._source.open(shard)) for name, shard in self._shards(numbers).items()
            }
            records = list(threads.map(lambda number: self._read_record(number, files), numbers))
        return join_records(records, [self._first_positions[number] for number in numbers])

    def _shards(self, numbers: Sequence[int]) -> dict[str, ShardEntry]:
        """List the shards of records by file, in the order of the records."""
        return {shard.file: shard for shard, _ in (self._records[number] for number in numbers)}

    def _read_record(self, number: int, files: dict[str, BinaryIO]) -> Record:
        shard, place = self._records[number]
        try:
            return self._read_checked(files[shard.file], shard, place)
        except UserError:
            if not self._source.discard(shard):
                raise
        with self._source.open(shard) as fresh:
            return self._read_checked(fresh, shard, place)

    def _read_checked(self, file: BinaryIO, shard: ShardEntry, number: int) -> Record:
        """Read record `number` of a shard and check it against the index. Raises UserError if it is corrupt."""
        entry = shard.records[number]
        try:
            # pread allocates the requested size, which may exceed the file.
            available = max(os.fstat(file.fileno()).st_size - entry.offset, 0)
            data = os.pread(file.fileno(), min(entry.bytes, available), entry.offset)
        except OSError as error:
            raise UserError(f"{shard.file}: record {number}: cannot read: {error.strerror}") from None
        return check_record(data, str(self._source), shard, number, self._k, self._labels)


def join_records(records: Sequence[Record], first_positions: Sequence[int]) -> Window:
    """Join records to a window. first_positions: position in the split of the first promoter of each record."""
    lengths = np.concatenate([np.diff(record.tokens.offsets) for record in records])
    firsts = np.cumsum([0, *(len(record.tokens.values) for record in records)])
    starts = [first + record.tokens.offsets[:-1] for first, record in zip(firsts, records, strict=False)]
    padding = np.zeros(round_up_width(lengths), records[0].tokens.values.dtype)
    positions = [np.arange(first, first + len(r)) for first, r in zip(first_positions, records, strict=True)]
    return Window(
        values=np.concatenate([*(record.tokens.values for record in records), padding]),
        starts=np.concatenate(starts),
        lengths=lengths,
        expression=np.concatenate([record.expression for record in records]),
        id=np.concatenate([record.id for record in records]),
        position=np.concatenate(positions),
    )
