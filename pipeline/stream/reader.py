"""Reader of windows: the records that are shuffled together, in memory, each checked against the index."""

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
    """Promoters of some records. Promoter i is values[starts[i] : starts[i] + lengths[i]]; position: its place in the
    split. Behind the last promoter, values has room for the width of the longest."""

    values: Ids
    starts: Numbers
    lengths: Numbers
    expression: npt.NDArray[np.float32]
    id: Numbers
    position: Numbers

    def __len__(self) -> int:
        return len(self.id)

    def rows(self, which: slice | Numbers) -> "Window":
        """Select promoters, or reorder them. values stays as it is."""
        return replace(
            self,
            starts=self.starts[which],
            lengths=self.lengths[which],
            expression=self.expression[which],
            id=self.id[which],
            position=self.position[which],
        )


class RecordReader:
    """Reader of the records of a split, which are numbered through all its shards."""

    def __init__(self, source: ShardSource, shards: Sequence[ShardEntry], k: int) -> None:
        self._source, self._k = source, k
        self._records = [(shard, number) for shard in shards for number in range(len(shard.records))]
        self._first_positions = [0, *accumulate(record.rows for shard in shards for record in shard.records)]

    def prefetch(self, numbers: Sequence[int]) -> None:
        """Announce the records that will be read soon, in this order."""
        self._source.prefetch(list(self._shards(numbers).values()))

    def window(self, numbers: Sequence[int], threads: Executor) -> Window:
        """Read and check records side by side. Raises UserError if one is missing or corrupt."""
        with contextlib.ExitStack() as stack:
            # An open file can be read to its end, even if another process removes it from the cache meanwhile.
            files = {
                name: stack.enter_context(self._source.open(shard)) for name, shard in self._shards(numbers).items()
            }
            records = list(threads.map(lambda number: self._read(number, files), numbers))
        return join_records(records, [self._first_positions[number] for number in numbers])

    def _shards(self, numbers: Sequence[int]) -> dict[str, ShardEntry]:
        """List the shards of records by file, in the order in which the records need them."""
        return {shard.file: shard for shard, _ in (self._records[number] for number in numbers)}

    def _read(self, number: int, files: dict[str, BinaryIO]) -> Record:
        shard, place = self._records[number]
        try:
            return self._check(files[shard.file], shard, place)
        except UserError:
            if not self._source.discard(shard):
                raise
        with self._source.open(shard) as fresh:
            return self._check(fresh, shard, place)

    def _check(self, file: BinaryIO, shard: ShardEntry, number: int) -> Record:
        """Read record `number` of a shard and check it against the index."""
        entry = shard.records[number]
        try:
            # pread allocates the requested size, which may exceed the file.
            available = max(os.fstat(file.fileno()).st_size - entry.offset, 0)
            data = os.pread(file.fileno(), min(entry.bytes, available), entry.offset)
        except OSError as error:
            raise UserError(f"{shard.file}: record {number}: cannot read: {error.strerror}") from None
        return check_record(data, str(self._source), shard, number, self._k)


def join_records(records: Sequence[Record], first_positions: Sequence[int]) -> Window:
    """Join records to a window. first_positions: place in the split of each record's first promoter."""
    lengths = np.concatenate([np.diff(record.tokens.offsets) for record in records])
    firsts = np.cumsum([0, *(len(record.tokens.values) for record in records)])
    starts = [first + record.tokens.offsets[:-1] for first, record in zip(firsts, records, strict=False)]
    room = np.zeros(round_up_width(lengths), records[0].tokens.values.dtype)
    positions = [np.arange(first, first + len(r)) for first, r in zip(first_positions, records, strict=True)]
    return Window(
        values=np.concatenate([*(record.tokens.values for record in records), room]),
        starts=np.concatenate(starts),
        lengths=lengths,
        expression=np.concatenate([record.expression for record in records]),
        id=np.concatenate([record.id for record in records]),
        position=np.concatenate(positions),
    )
