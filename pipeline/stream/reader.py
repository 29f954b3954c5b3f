"""Reader of windows: promoters that are shuffled together, padded, from records that are checked against the index.

A record is parsed, and its CRC-32 checked, when a reader first meets it in a file. Later its arrays are read where they
lay before. The records of a file that was replaced or written to since then are checked again.
"""

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.shards.index import ShardEntry
from pipeline.shards.records import (
    REWRITE_COMMAND,
    Bytes,
    Record,
    RecordPlaces,
    check_record,
    check_rows,
    find_address,
    find_places,
    parse_record,
)
from pipeline.stream.sources import LocalShards, ShardSource
from pipeline.tokens.kmers import Ids, Numbers, Ragged, id_dtype
from pipeline.tokens.padding import pad_rows, round_up_width

LABEL_BITS = 20
_UNCHECKED, _PARSED = -1, -2
_KNOWN_SIZES = 64
_BUFFER_BYTES = 1 << 16
"""The buffer grows in steps of this size, and has at least half of it after the last record."""


@dataclass(frozen=True)
class Window:
    """Promoters in reading order.

    tokens: (rows, width) ids, one per base, padded with 0; numbers: (rows, 3) int64, length, id in the dataset and
    position in the split; expression: (rows,) float32, or (rows, labels) for several labels.
    """

    tokens: Ids
    numbers: Numbers
    expression: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Rows:
    """Consecutive promoters of a window, from `first` to `end`."""

    window: Window
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first

    def split(self, rows: int) -> "tuple[Rows, Rows]":
        """Split after the first `rows` promoters."""
        cut = self.first + rows
        return Rows(self.window, self.first, cut), Rows(self.window, cut, self.end)

    @property
    def arrays(self) -> tuple[Ids, Numbers, npt.NDArray[np.float32]]:
        """View the arrays of the window."""
        part = slice(self.first, self.end)
        return self.window.tokens[part], self.window.numbers[part], self.window.expression[part]


Version = tuple[int, int, int]
"""Inode, size and time of the last change of a file. It differs after the file was replaced or written to."""


class RecordReader:
    """Reader of the records of a split. Several iterators can use it, each in its own thread."""

    def __init__(self, source: ShardSource, shards: Sequence[ShardEntry], k: int, labels: int | None = None) -> None:
        self._source, self._shards, self._k, self._labels = source, shards, k, labels
        self._first_positions = [0, *accumulate(shard.rows for shard in shards)]
        self._checked: dict[int, tuple[Version, Numbers]] = {}
        """Shard -> version of its file, and places of the arrays of each record: (records, 7) int64, see RecordPlaces;
        the first one is _UNCHECKED, or _PARSED for a record that cannot be read in place."""
        self._known: dict[int, tuple[RecordPlaces, bytes]] = {}
        """Size of a record in bytes -> places and headers of the last new one of this size, for some sizes."""
        self._label_shape: tuple[int, ...] = ()
        self._thread = threading.local()

    def prefetch(self, records: Sequence[Sequence[int]]) -> None:
        """Prefetch records that will be read soon, in this order. records: (shard, record of the shard) of each."""
        self._source.prefetch_records([(self._shards[shard], number) for shard, number in records])

    def read_window(self, pieces: Numbers, picks: Numbers) -> tuple[Window, Numbers]:
        """Read promoters of a window. Raises UserError if one of its records is missing or corrupt.

        pieces: (n, 5) int64, see Lane; picks: (rows,) numbers of promoters, which run through the pieces. Returns the
        promoters of `picks`, and the facts of all promoters of the pieces, see compute_facts.
        """
        places = [(shard, number) for shard, number, *_ in pieces.tolist()]
        with ExitStack() as stack:
            # An open file stays readable if another process removes it from the cache.
            files = {
                shard: stack.enter_context(self._source.open(self._shards[shard], [n for s, n in places if s == shard]))
                for shard in dict.fromkeys(shard for shard, _ in places)
            }
            sizes = [self._count_bytes(files[shard], shard, number) for shard, number in places]
            buffer = self._take_buffer(sum(sizes))
            records = [
                self._read_record(files[shard], shard, number, buffer[start : start + size])
                for (shard, number), start, size in zip(places, accumulate([0, *sizes]), sizes, strict=False)
            ]
        positions = [self._first_positions[shard] + row for shard, *_, row in pieces.tolist()]
        return join_records(records, pieces[:, 2:4].tolist(), positions, picks, buffer)

    def _count_bytes(self, file: BinaryIO, shard: int, number: int) -> int:
        """Count the bytes of a record that its file has. An index may promise more."""
        entry = self._shards[shard].records[number]
        return min(entry.bytes, max(os.fstat(file.fileno()).st_size - entry.offset, 0))

    def _take_buffer(self, size_bytes: int) -> Bytes:
        """Take the buffer of this thread, which is overwritten by its next window."""
        buffer: Bytes | None = getattr(self._thread, "buffer", None)
        if buffer is None or len(buffer) < size_bytes + _BUFFER_BYTES // 2:
            buffer = self._thread.buffer = np.empty((size_bytes // _BUFFER_BYTES + 2) * _BUFFER_BYTES, np.uint8)
        return buffer

    def _read_record(self, file: BinaryIO, shard: int, number: int, data: Bytes) -> Record:
        entry = self._shards[shard]
        try:
            return self._read_checked(file, shard, number, data)
        except UserError:
            if not self._source.discard(entry):
                raise
        with self._source.open(entry, [number]) as fresh:
            return self._read_checked(fresh, shard, number, np.empty(entry.records[number].bytes, np.uint8))

    def _read_checked(self, file: BinaryIO, shard: int, number: int, data: Bytes) -> Record:
        """Read a record into `data`, and check it if it is new. Raises UserError if it is corrupt."""
        entry = self._shards[shard]
        places = self._find_places(file, shard)
        try:
            read = os.preadv(file.fileno(), [data.data], entry.records[number].offset)
        except OSError as error:
            raise UserError(f"{entry.file}: record {number}: cannot read: {error.strerror}") from None
        rows, size_bytes = entry.records[number].rows, entry.records[number].bytes
        if read == size_bytes and places[number, 0] != _UNCHECKED:
            if places[number, 0] == _PARSED:
                return parse_record(data.data, rows, self._labels)
            return RecordPlaces(*places[number].tolist()).view(data, self._k, self._label_shape)
        found: list[RecordPlaces | None] = []
        parse = partial(self._parse, found)
        command = self._source.command if isinstance(self._source, LocalShards) else REWRITE_COMMAND
        record = check_record(data[:read].data, str(self._source), entry, number, self._k, parse=parse, command=command)
        places[number] = found[0] or _PARSED
        return record

    def _parse(self, found: list[RecordPlaces | None], data: bytes | memoryview, rows: int) -> Record:
        """Parse a record, and add its places to `found`. One that has the headers of another one needs no parser."""
        content = np.frombuffer(data, np.uint8)
        known = self._known.get(len(content))
        if known is not None and known[0].rows == rows and known[0].read_headers(content) == known[1]:
            found.append(known[0])
            record = known[0].view(content, self._k, self._label_shape)
            record = replace(record, tokens=Ragged(record.tokens.values, record.tokens.offsets.astype(np.int64)))
            check_rows(record)
            return record
        record = parse_record(data, rows, self._labels)
        places = find_places(record, content)
        found.append(places)
        if places is not None and record.tokens.values.dtype == id_dtype(self._k):
            if len(self._known) >= _KNOWN_SIZES:
                self._known.clear()
            self._label_shape = record.expression.shape[1:]
            self._known[len(content)] = places, places.read_headers(content)
        return record

    def _find_places(self, file: BinaryIO, shard: int) -> Numbers:
        """Find the places in the records of a file; all are unchecked for a version that this process has not read."""
        status = os.fstat(file.fileno())
        version = status.st_ino, status.st_size, status.st_mtime_ns
        known = self._checked.get(shard)
        if known is None or known[0] != version:
            size = len(self._shards[shard].records), len(RecordPlaces._fields)
            known = self._checked[shard] = version, np.full(size, _UNCHECKED)
        return known[1]


def join_records(
    records: Sequence[Record], rows: Sequence[Sequence[int]], positions: Sequence[int], picks: Numbers, buffer: Bytes
) -> tuple[Window, Numbers]:
    """Join pieces of records. Returns the promoters of `picks`, and the facts of all, see RecordReader.read_window.

    rows: per record, the first and end row of its piece; positions: position in the split of that first row; buffer:
    memory in which the ids of the records lie, unless these were decompressed.
    """
    values, bases = _find_values(records, buffer)
    pieces = list(zip(records, rows, bases, positions, strict=True))
    offsets = [record.tokens.offsets[first : end + 1].astype(np.int64) for record, (first, end), *_ in pieces]
    starts = concatenate([base + part[:-1] for base, part in zip(bases, offsets, strict=True)])[picks]
    all_lengths = concatenate([np.diff(part) for part in offsets])
    lengths = all_lengths[picks]
    width = round_up_width(lengths) if len(lengths) else 0
    if len(starts) and int(starts.max()) + width > len(values):
        values = np.concatenate([values, np.zeros(width, values.dtype)])
    expression = concatenate([record.expression[first:end] for record, (first, end), *_ in pieces])
    ids = concatenate([record.id[first:end] for record, (first, end), *_ in pieces])
    numbers = np.empty((len(picks), 3), np.int64)
    numbers[:, 0], numbers[:, 1] = lengths, ids[picks]
    numbers[:, 2] = concatenate([np.arange(at, at + end - first) for _, (first, end), _, at in pieces])[picks]
    window = Window(pad_rows(values, starts, lengths, width), numbers, expression[picks])
    return window, compute_facts(all_lengths, expression)


def compute_facts(lengths: Numbers, expression: npt.NDArray[np.float32]) -> Numbers:
    """Compute what all ranks need to know of each promoter: (rows,) int64, its length.

    With several labels per promoter, expression (rows, labels), the lower LABEL_BITS bits count the present ones.
    """
    return lengths if expression.ndim == 1 else (lengths << LABEL_BITS) + np.isfinite(expression).sum(1)


def _find_values(records: Sequence[Record], buffer: Bytes) -> tuple[Ids, list[int]]:
    """Find memory with the ids of all records, and the index of the first id of each record in it."""
    ids = [record.tokens.values for record in records]
    size = ids[0].itemsize
    whole = buffer[: len(buffer) // size * size].view(ids[0].dtype)
    places = [find_address(values) - find_address(buffer) for values in ids]
    if all(0 <= place < len(buffer) and place % size == 0 for place in places):
        return whole, [place // size for place in places]
    return concatenate(ids), [0, *accumulate(map(len, ids))][:-1]


def concatenate(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Concatenate arrays; a single one is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
