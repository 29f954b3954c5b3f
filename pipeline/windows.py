"""Records of shard files -> windows: the promoters that are shuffled together, in memory and found whole."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

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
    """The records of a split, counted through its shards. Several threads may read."""

    def __init__(self, source: ShardSource, shards: Sequence[ShardEntry]) -> None:
        self._source = source
        self._places = [(shard, number) for shard in shards for number in range(len(shard.records))]
        self._first_positions = [0, *accumulate(shard.records[number].rows for shard, number in self._places)]
        self._checksums: dict[int, int] = {}
        """Of the records whose sha256 was right: when they are read again, this costs a tenth of it."""

    def window(self, numbers: Sequence[int], records: Sequence[Record]) -> Window:
        """These records, as they were read, as a window."""
        return join_records(records, [self._first_positions[number] for number in numbers])

    def expect(self, numbers: Sequence[int]) -> None:
        """These will be read soon, in this order."""
        self._source.expect(list({id(shard): shard for shard, _ in map(self._places.__getitem__, numbers)}.values()))

    def read(self, number: int) -> Record:
        """One record. Raises UserError where it cannot be had as it was written."""
        shard, place = self._places[number]
        entry = shard.records[place]
        for again in (True, False):
            data = self._bytes(shard, entry)
            if self._is_right(number, data, entry):
                break
            if not again or not self._source.replace(shard):
                raise damaged(self._source.name(shard), place, entry, data, self._source.mend(shard))
        return parse_record(data)

    def _bytes(self, shard: ShardEntry, entry: RecordEntry) -> bytes:
        with self._source.open(shard) as file:
            try:
                file.seek(entry.offset)
                return file.read(entry.bytes)
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
