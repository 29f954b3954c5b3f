"""Records of shard files -> windows: the promoters that are shuffled together, in memory and found whole."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.index import RecordEntry, ShardEntry
from pipeline.padding import Ids, Numbers, padded_width
from pipeline.records import Record, parse_record
from pipeline.sources import LocalShards, ShardSource


@dataclass(frozen=True)
class Window:
    """Some records end to end. Promoter i is values[starts[i] : starts[i] + lengths[i]]; position: its place in the
    split. values goes on behind the last promoter for the width of the longest."""

    values: Ids
    starts: Numbers
    lengths: Numbers
    expression: npt.NDArray[np.float32]
    id: Numbers
    position: Numbers


class RecordReader:
    """The records of a split, counted through its shards."""

    def __init__(self, source: ShardSource, shards: Sequence[ShardEntry]) -> None:
        self._source = source
        self._shards = shards
        self._places = [(at, number) for at, shard in enumerate(shards) for number in range(len(shard.records))]
        self._first_positions = [0, *accumulate(record.rows for shard in shards for record in shard.records)]
        self._checksums: dict[int, int] = {}
        """Of the records whose sha256 was right: when they are read again, this costs a tenth of it."""

    def expect(self, numbers: Sequence[int]) -> None:
        """These will be read soon, in this order."""
        self._source.expect([self._shards[at] for at in dict.fromkeys(self._places[number][0] for number in numbers)])

    def window(self, numbers: Sequence[int], threads: Executor) -> Window:
        """These records, read and checked side by side. Raises UserError where one cannot be had as it was written."""
        with contextlib.ExitStack() as stack:
            # What is open can be read to its end, even where a cache that others use throws it away meanwhile.
            shards = dict.fromkeys(self._places[number][0] for number in numbers)
            files = {at: stack.enter_context(self._source.open(self._shards[at])) for at in shards}
            records = list(threads.map(lambda number: self._read(number, files[self._places[number][0]]), numbers))
        return join_records(records, [self._first_positions[number] for number in numbers])

    def _read(self, number: int, file: BinaryIO) -> Record:
        at, place = self._places[number]
        shard = self._shards[at]
        entry = shard.records[place]
        data = self._bytes(file, shard, entry)
        if not self._is_right(number, data, entry) and self._source.replace(shard):
            with self._source.open(shard) as fresh:
                data = self._bytes(fresh, shard, entry)
        if not self._is_right(number, data, entry):
            raise damaged(self._source.name(shard), place, entry, data, self._source.mend(shard))
        return parse_record(data)

    def _bytes(self, file: BinaryIO, shard: ShardEntry, entry: RecordEntry) -> bytes:
        try:
            return os.pread(file.fileno(), entry.bytes, entry.offset)
        except OSError as error:
            raise UserError(f"{self._source.name(shard)}: cannot be read: {error.strerror}") from None

    def _is_right(self, number: int, data: bytes, entry: RecordEntry) -> bool:
        if len(data) != entry.bytes:
            return False
        known, found = self._checksums.get(number), _checksum(data)
        if known is not None:
            return found == known
        right = hashlib.sha256(data).hexdigest() == entry.sha256
        if right:
            self._checksums[number] = found
        return right


def _checksum(data: bytes) -> int:
    """The sum of the 64-bit words: any flipped bit changes it. data: whole tar blocks."""
    return int(np.frombuffer(data, np.uint64).sum(dtype=np.uint64))


def read_record(path: Path, number: int, entry: RecordEntry) -> Record:
    """One record of a shard file, its hash checked."""
    source = LocalShards(path.parent)
    shard = ShardEntry(path.name, entry.rows, 0, "", [entry])
    with source.open(shard) as file:
        file.seek(entry.offset)
        data = file.read(entry.bytes)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise damaged(str(path), number, entry, data, source.mend(shard))
    return parse_record(data)


def damaged(name: str, number: int, entry: RecordEntry, data: bytes, mend: str) -> UserError:
    """What to say of a record whose bytes are not those that were written."""
    return UserError(
        f"{name}: record {number}: expected {entry.bytes:,} bytes of sha256 {entry.sha256[:16]}..., got "
        f"{len(data):,} of {hashlib.sha256(data).hexdigest()[:16]}...; {mend}"
    )


def join_records(records: Sequence[Record], first_positions: Sequence[int]) -> Window:
    """The window of these records. first_positions: the place in the split of each one's first promoter."""
    lengths = np.concatenate([np.diff(record.tokens.offsets) for record in records])
    firsts = np.cumsum([0, *(len(record.tokens.values) for record in records)])
    starts = [record.tokens.offsets[:-1] + first for record, first in zip(records, firsts, strict=False)]
    room = np.zeros(padded_width(lengths), records[0].tokens.values.dtype)
    positions = [np.arange(first, first + len(r)) for first, r in zip(first_positions, records, strict=True)]
    return Window(
        values=np.concatenate([*(record.tokens.values for record in records), room]),
        starts=np.concatenate(starts),
        lengths=lengths,
        expression=np.concatenate([record.expression for record in records]),
        id=np.concatenate([record.id for record in records]),
        position=np.concatenate(positions),
    )
