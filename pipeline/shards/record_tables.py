"""Tables of the records of very many shards: an array per split, of which a reader reads the rows of its shards.

    finetune/train.records.npy   (records, 4) int64: offset, bytes, rows, crc32 of every record, see RecordEntry

index.json then lists, instead of the records of a shard, its rows of the table and their sha256.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, overload

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pipeline.errors import UserError

MOST_RECORDS = 100_000
"""Most records that index.json lists itself: 400 million promoters, 12 MB."""
NPY_HEADER_BYTES = 128
"""Size of the header of a .npy file as np.save writes it."""
_ROW_BYTES = 4 * 8
_REWRITE = "fix: promoter-bert shards"

Sha256 = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Positive = Annotated[int, Field(strict=True, ge=1, le=2**53)]
Crc32 = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


@dataclass(frozen=True)
class RecordEntry:
    """One record of a shard. offset, bytes: its range in the file; rows: promoters; crc32: of its bytes."""

    offset: Count
    bytes: Positive
    rows: Positive
    crc32: Crc32


@dataclass(frozen=True)
class TableSlice:
    """Rows of a table with the records of a shard. sha256: of their bytes."""

    first: Count
    records: Annotated[int, Field(strict=True, ge=1, le=2**20)]
    sha256: Sha256


class RecordTable(Sequence[RecordEntry]):
    """Records of a shard, read from a table when they are first used. Raises UserError if they are invalid.

    name: of the table, for errors; read: function (first, end byte of the table) -> bytes; check: raises UserError for
    invalid values of the records.
    """

    def __init__(
        self,
        name: str,
        part: TableSlice,
        read: Callable[[int, int], bytes],
        check: Callable[[list[dict[str, int]]], None],
    ) -> None:
        self._name, self._part, self._read, self._check = name, part, read, check
        self._table: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._part.records

    @overload
    def __getitem__(self, which: int) -> RecordEntry: ...
    @overload
    def __getitem__(self, which: slice) -> list[RecordEntry]: ...
    def __getitem__(self, which: int | slice) -> RecordEntry | list[RecordEntry]:
        table = self._load()
        if isinstance(which, slice):
            return [RecordEntry(*row) for row in table[which].tolist()]
        return RecordEntry(*table[which].tolist())

    def __iter__(self) -> Iterator[RecordEntry]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _load(self) -> npt.NDArray[np.int64]:
        if self._table is None:
            part, size = self._part, self._part.records * _ROW_BYTES
            first = NPY_HEADER_BYTES + part.first * _ROW_BYTES
            try:
                data = self._read(first, first + size)
            except FileNotFoundError:
                raise UserError(f"{self._name}: no such file; {_REWRITE}") from None
            place, sha256 = f"{self._name}: rows {part.first} to {part.first + part.records}", hashlib.sha256(data)
            if sha256.hexdigest() != part.sha256:
                got = f"expected sha256 {part.sha256[:16]}..., got {sha256.hexdigest()[:16]}..."
                raise UserError(f"{place}: {got}; {_REWRITE}")
            if len(data) != size:  # the hash may be that of a truncated table
                raise UserError(f"{place}: expected {size:,} bytes, got {len(data):,}; {_REWRITE}")
            table = np.frombuffer(data, "<i8").reshape(-1, 4)
            names = RecordEntry.__dataclass_fields__
            self._check([dict(zip(names, row, strict=True)) for row in table.tolist()])
            self._table = table
        return self._table


def table_name(split: str) -> str:
    """Name the table of a split, relative to the index."""
    return f"{split}.records.npy"


def pack_records(shards: Sequence[Sequence[RecordEntry]]) -> tuple[bytes, list[TableSlice]]:
    """Pack the records of the shards of a split. Returns the bytes of their table, and the slice of each shard."""
    tables = [np.array([(r.offset, r.bytes, r.rows, r.crc32) for r in records], "<i8") for records in shards]
    firsts = np.cumsum([0, *map(len, tables)]).tolist()
    slices = [
        TableSlice(first, len(table), hashlib.sha256(table.tobytes()).hexdigest())
        for first, table in zip(firsts, tables, strict=False)
    ]
    file = io.BytesIO()
    np.save(file, np.concatenate(tables))
    content = file.getvalue()
    assert len(content) == NPY_HEADER_BYTES + firsts[-1] * _ROW_BYTES
    return content, slices
