"""Records: about 4,096 promoters as four .npy members of a tar, readable by webdataset without this package.

    KEY.tokens.npy      concatenated ids of all promoters (uint8, uint16 or uint32), one per base
    KEY.offsets.npy     promoter i is tokens[offsets[i]:offsets[i + 1]] (uint32, one more than promoters)
    KEY.expression.npy  labels (float32): (promoters,), or (promoters, labels) for several labels; NaN if missing
    KEY.id.npy          promoters.id of the dataset (int64)

Compressed, each member is a Zstandard frame and its name ends in .npy.zst.

Tar headers come from tarfile of the standard library, but not members, which it copies in small pieces. The writer of
webdataset is not used: it imports torch, which takes seconds per process, and does not return the offset of a record.
Owner, mode and time are fixed, so equal arrays give equal bytes.
"""

import io
import math
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.io.remote import read_bytes
from pipeline.shards.index import TAR_END_BYTES, ShardEntry, shard_name
from pipeline.shards.record_tables import NPY_HEADER_BYTES
from pipeline.tokens.kmers import SPECIALS, Ragged, id_dtype, vocabulary_size

MEMBERS = ("tokens", "offsets", "expression", "id")
ZSTD = ".zst"
ZSTD_LEVEL = 1
"""The fastest level. Higher levels save little: the flanks repeat in every row, the inserts are random."""
_DTYPES = {"tokens": ("|u1", "<u2", "<u4"), "offsets": ("<u4",), "expression": ("<f4",), "id": ("<i8",)}
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(?P<size>..)(?P<header>\{'descr': '(?P<dtype>[|<][uif][1248])', "
    rb"'fortran_order': False, 'shape': \((?P<rows>[0-9]{1,12}),(?: (?P<columns>[0-9]{1,6}))?\), \} *\n)",
    re.DOTALL,
)
"""Header of a .npy file, version 1.0, of an array of one or two dimensions."""
MAX_ZSTD_RATIO = 1_000
"""Limit of the compression of arrays above FREE_BYTES: far above that of promoters, far below that of a bomb."""
FREE_BYTES = 1 << 30
_NUMBER_END, _CHECKSUM = 9, slice(148, 156)
"""In the tar header of a member: end of the number of its record, and place of the checksum of the header."""
END = bytes(TAR_END_BYTES)
"""Two empty blocks end a tar."""
REWRITE = "fix: delete the file and run promoter-bert shards with the options it was written with"
"""The fix in the error for a corrupt shard."""


Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Record:
    """Promoters of one record.

    tokens: ids, one per base; expression: float32, (rows,) or (rows, labels) for several labels, NaN without a label;
    id: (rows,) int64, of the dataset.
    """

    tokens: Ragged
    expression: npt.NDArray[np.float32]
    id: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.id)


class RecordPlaces(NamedTuple):
    """Places of the arrays in the bytes of an uncompressed record: index of the first byte of each.

    rows: its promoters; ids: its tokens; size_bytes: of the record.
    """

    tokens: int
    offsets: int
    expression: int
    id: int
    rows: int
    ids: int
    size_bytes: int

    def view(self, data: Bytes, k: int, label_shape: tuple[int, ...]) -> Record:
        """View the bytes of a record as its arrays; the offsets stay uint32. label_shape: of the labels of a row."""

        def view(start: int, dtype: npt.DTypeLike, *shape: int) -> npt.NDArray[Any]:
            end = start + math.prod(shape) * np.dtype(dtype).itemsize
            return data[start:end].view(dtype).reshape(shape)

        rows = self.rows
        tokens = Ragged(view(self.tokens, id_dtype(k), self.ids), view(self.offsets, "<u4", rows + 1))
        return Record(tokens, view(self.expression, "<f4", rows, *label_shape), view(self.id, "<i8", rows))

    def read_headers(self, data: Bytes) -> bytes:
        """Read the tar and npy headers of the members, without the number of the record and the checksums of the tar.

        Records of one size with the same headers have the same places.
        """
        starts = self.tokens, self.offsets, self.expression, self.id
        headers = [data[start - tarfile.BLOCKSIZE - NPY_HEADER_BYTES : start].tobytes() for start in starts]
        return b"".join(header[_NUMBER_END : _CHECKSUM.start] + header[_CHECKSUM.stop :] for header in headers)


def find_places(record: Record, data: Bytes) -> RecordPlaces | None:
    """Find the places of the arrays of a record in its bytes.

    Returns None if they are compressed, or if their headers have another size than those of np.save.
    """
    members = _split_members(data.data)
    if any(is_compressed for _, is_compressed in members.values()):
        return None
    arrays = record.tokens.values, _parse_array(members["offsets"][0], "offsets"), record.expression, record.id
    tokens, offsets, expression, ids = starts = [find_address(array) - find_address(data) for array in arrays]
    contents = [find_address(np.frombuffer(members[name][0], np.uint8)) - find_address(data) for name in MEMBERS]
    if any(start - content != NPY_HEADER_BYTES for start, content in zip(starts, contents, strict=True)):
        return None
    return RecordPlaces(tokens, offsets, expression, ids, len(record), len(record.tokens.values), len(data))


def find_address(array: npt.NDArray[Any]) -> int:
    """Find the address of the first byte of an array in memory."""
    return int(array.__array_interface__["data"][0])


def serialize_record(number: int, record: Record, zstd: bool = False) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the tar members of a record, in pieces. number: of the record in its split.

    Raises UserError if the record has too many ids for 32-bit offsets.
    """
    if record.tokens.offsets[-1] >= 2**32:
        raise UserError(
            f"{len(record):,} promoters exceed a record's 32-bit offsets; fix: lower shards.record_promoters"
        )
    arrays = {
        "tokens": record.tokens.values,
        "offsets": record.tokens.offsets.astype(np.uint32),
        "expression": record.expression,
        "id": record.id,
    }
    for name in MEMBERS:
        pieces = _serialize_array(arrays[name])
        if zstd:
            pieces = [pa.Codec("zstd", ZSTD_LEVEL).compress(b"".join(pieces), asbytes=True)]
        size = sum(len(piece) for piece in pieces)
        member = tarfile.TarInfo(f"{number:09d}.{name}.npy{ZSTD if zstd else ''}")
        member.size = size
        member.mode, member.mtime, member.uname, member.gname = 0o444, 0, "root", "root"
        yield member.tobuf(tarfile.USTAR_FORMAT)
        yield from pieces
        yield bytes(-size % tarfile.BLOCKSIZE)


def read_record(folder: Path | str, shard: ShardEntry, number: int, k: int, labels: int | None = None) -> Record:
    """Read record `number` of a shard in a folder or URL; labels: see parse_record.

    Raises UserError if it differs from the index.
    """
    entry = shard.records[number]
    data = read_range(folder, shard, entry.offset, entry.offset + entry.bytes)
    return check_record(data, folder, shard, number, k, labels)


def read_range(folder: Path | str, shard: ShardEntry, start: int, end: int | None) -> bytes:
    """Read the bytes of a shard from start to end. end: None for the end of the file.

    Raises UserError if the file is missing or cannot be read.
    """
    try:
        return read_bytes(folder, shard_name(shard), start, end)
    except FileNotFoundError:
        raise missing_shard_error(folder, shard) from None


def missing_shard_error(folder: Path | str, shard: ShardEntry) -> UserError:
    """Make the error for a missing shard file."""
    return UserError(f"{folder}/{shard.file}: no such file; fix: promoter-bert shards")


def check_record(
    data: bytes | memoryview,
    folder: Path | str,
    shard: ShardEntry,
    number: int,
    k: int,
    labels: int | None = None,
    parse: Callable[[bytes | memoryview, int], Record] | None = None,
) -> Record:
    """Parse record `number` of a shard and check it against the index. Uncompressed arrays are views of `data`.

    labels: see parse_record; parse: function (bytes, rows) -> record in place of parse_record. Raises UserError that
    names file, record and byte range if size, CRC-32, rows or ids are wrong.
    """
    entry = shard.records[number]
    place = f"{folder}/{shard.file}: record {number}, bytes {entry.offset:,} to {entry.offset + entry.bytes:,}"
    if len(data) != entry.bytes:
        raise UserError(f"{place}: expected {entry.bytes:,} bytes, got {len(data):,}; {REWRITE}")
    crc32 = zlib.crc32(data)
    if crc32 != entry.crc32:
        raise UserError(f"{place}: expected CRC-32 {entry.crc32:08x}, got {crc32:08x}; {REWRITE}")
    try:
        record = parse(data, entry.rows) if parse else parse_record(data, entry.rows, labels)
        _check_ids(record, k)
    except ValueError as error:
        raise UserError(f"{place}: {error}; {REWRITE}") from None
    if len(record) != entry.rows:
        raise UserError(f"{place}: expected {entry.rows:,} promoters, got {len(record):,}; {REWRITE}")
    return record


def parse_record(data: bytes | memoryview, rows: int, labels: int | None = None) -> Record:
    """Parse the tar members of a record. Uncompressed arrays are views of `data`.

    rows: promoters of the record; they bound the memory of compressed arrays. labels: columns of the labels, None for
    one label, which has no column axis. Raises ValueError if the bytes are not a record, or hold more.
    """
    try:
        members = _split_members(memoryview(data))
        row_bytes = max(np.int64().itemsize, (labels or 1) * np.float32().itemsize)
        arrays = {
            name: _parse_array(_decompress(members, name, (rows + 1) * row_bytes), name, columns)
            for name, columns in (("offsets", None), ("expression", labels), ("id", None))
        }
        offsets = arrays["offsets"].astype(np.int64)
        tokens_bytes = int(offsets[-1]) * np.uint32().itemsize if len(offsets) else 0
        tokens = _parse_array(_decompress(members, "tokens", tokens_bytes), "tokens")
        record = Record(Ragged(tokens, offsets), arrays["expression"], arrays["id"])
    except (tarfile.TarError, KeyError, OSError) as error:
        raise ValueError(f"not a record: {error!r}") from None
    check_rows(record)
    return record


def _split_members(view: memoryview) -> dict[str, tuple[memoryview, bool]]:
    """Split a record into the bytes of its members, by array, and whether they are compressed."""
    members: dict[str, tuple[memoryview, bool]] = {}
    position = 0
    while position < len(view):
        member = tarfile.TarInfo.frombuf(bytes(view[position : position + tarfile.BLOCKSIZE]), "ascii", "strict")
        position += tarfile.BLOCKSIZE
        if not member.isreg() or not 0 <= member.size <= len(view) - position:
            raise ValueError(f"not a record: member {member.name!a}: no file, or longer than the record")
        _, name, *suffixes = member.name.split(".")
        members[name] = view[position : position + member.size], suffixes == ["npy", "zst"]
        position += member.size + -member.size % tarfile.BLOCKSIZE
    return members


def _decompress(members: dict[str, tuple[memoryview, bool]], name: str, limit: int) -> bytes | memoryview:
    """Return the .npy file of a member. limit: bytes of its array; a compressed one that holds more is refused."""
    content, is_compressed = members[name]
    if not is_compressed:
        return content
    limit = min(limit, max(MAX_ZSTD_RATIO * len(content), FREE_BYTES)) + NPY_HEADER_BYTES
    decompressed: bytes = pa.input_stream(pa.py_buffer(content), compression="zstd").read(limit + 1)
    if len(decompressed) > limit:
        raise ValueError(f"{name}: expected at most {limit:,} bytes after decompression, got more")
    return decompressed


def check_rows(record: Record) -> None:
    """Raise ValueError if the arrays of a record are not of the same rows."""
    offsets = record.tokens.offsets
    if not len(offsets) == len(record.expression) + 1 == len(record.id) + 1:
        raise ValueError(
            f"expected as many labels and ids as promoters, got {len(offsets) - 1:,} promoters, "
            f"{len(record.expression):,} labels and {len(record.id):,} ids"
        )
    if offsets[0] != 0 or offsets[-1] != len(record.tokens.values) or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets: expected ascending numbers from 0 to {len(record.tokens.values):,}, the tokens")


def _check_ids(record: Record, k: int) -> None:
    """Raise ValueError if a record holds other ids than k-mers."""
    values = record.tokens.values
    if values.dtype != id_dtype(k):
        raise ValueError(f"tokens: expected dtype {id_dtype(k)} for k = {k}, got {values.dtype}")
    if len(values) and (values.min() < len(SPECIALS) or values.max() >= vocabulary_size(k)):
        raise ValueError(
            f"tokens: expected ids from {len(SPECIALS)} to {vocabulary_size(k) - 1:,}, "
            f"got {values.min()} to {values.max():,}"
        )


def _serialize_array(array: npt.NDArray[Any]) -> list[bytes | memoryview]:
    """Serialize an array as a .npy file: its header, and its bytes without a copy."""
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return [header.getvalue(), array.reshape(-1).view(np.uint8).data]


def _parse_array(data: bytes | memoryview, name: str, columns: int | None = None) -> npt.NDArray[Any]:
    """View the bytes of a .npy file as an array (rows,), or (rows, columns).

    name: of its member, which determines the dtype. Raises ValueError for another shape or dtype.
    """
    # The parser of numpy evaluates the header, and raises errors of many types for an invalid one.
    match = _NPY.match(data)
    if not match or int.from_bytes(match["size"], "little") != len(match["header"]):
        raise ValueError(f"{name}: expected an array as np.save writes it, of one or two dimensions")
    if match["columns"] != (None if columns is None else str(columns).encode()):
        shape = "(rows,)" if columns is None else f"(rows, {columns})"
        got = "(rows,)" if match["columns"] is None else f"(rows, {match['columns'].decode()})"
        raise ValueError(f"{name}: expected an array of shape {shape}, got {got}")
    if match["dtype"].decode() not in _DTYPES[name]:
        raise ValueError(f"{name}: expected dtype {' or '.join(_DTYPES[name])}, got {match['dtype'].decode()}")
    array = np.frombuffer(data, match["dtype"].decode(), offset=match.end())
    values = int(match["rows"]) * (columns or 1)
    if len(array) != values:
        raise ValueError(f"{name}: expected {values:,} values, got {len(array):,}")
    return array if columns is None else array.reshape(-1, columns)
