"""A record: about 4,096 promoters as four .npy members of a tar, readable by plain webdataset.

    KEY.tokens.npy      ids of all promoters end to end (uint8, uint16 or uint32), one a base
    KEY.offsets.npy     promoter i is tokens[offsets[i]:offsets[i + 1]] (uint32, one more than promoters)
    KEY.expression.npy  labels (float32)
    KEY.id.npy          promoters.id of the dataset (int64)

Compressed, each member is a Zstandard frame and its name ends in .npy.zst.

Tar headers are those of the standard library's tarfile, whose own reading and writing of members copies them in
small pieces; webdataset's writer imports torch, seconds in each writer process, and hides where a record begins.
Owner, mode and time are fixed, so equal arrays give equal bytes.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.tokens.kmers import Ragged

MEMBERS = ("tokens", "offsets", "expression", "id")
ZSTD = ".zst"
ZSTD_LEVEL = 1
"""The quickest; k-mer ids that repeat from row to row in the flanks leave higher levels little to find."""
END = bytes(2 * tarfile.BLOCKSIZE)
"""Two empty blocks close a tar."""


@dataclass(frozen=True)
class Record:
    """Some promoters: their ids one a base, labels and dataset ids."""

    tokens: Ragged
    expression: npt.NDArray[np.float32]
    id: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.id)


def record_blocks(number: int, record: Record, zstd: bool = False) -> Iterator[bytes | memoryview]:
    """The bytes of a record's members in a tar, piece by piece. number: of the record in its split.

    Raises UserError for more ids than 32-bit offsets can count.
    """
    if record.tokens.offsets[-1] >= 2**32:
        raise UserError(f"{len(record):,} promoters have too many bases for a record; lower shards.record_promoters")
    arrays = {
        "tokens": record.tokens.values,
        "offsets": record.tokens.offsets.astype(np.uint32),
        "expression": record.expression,
        "id": record.id,
    }
    for name in MEMBERS:
        pieces = _npy(arrays[name])
        if zstd:
            pieces = [pa.Codec("zstd", ZSTD_LEVEL).compress(b"".join(pieces), asbytes=True)]
        size = sum(len(piece) for piece in pieces)
        member = tarfile.TarInfo(f"{number:09d}.{name}.npy{ZSTD if zstd else ''}")
        member.size = size
        member.mode, member.mtime, member.uname, member.gname = 0o444, 0, "root", "root"
        yield member.tobuf(tarfile.USTAR_FORMAT)
        yield from pieces
        yield bytes(-size % tarfile.BLOCKSIZE)


def parse_record(data: bytes | memoryview) -> Record:
    """A record from the bytes of its members, as they lie in the tar; uncompressed arrays are views of `data`.

    Raises ValueError where they are no record.
    """
    view = memoryview(data)
    arrays: dict[str, npt.NDArray[Any]] = {}
    place = 0
    try:
        while place < len(view):
            header = bytes(view[place : place + tarfile.BLOCKSIZE])
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
            place += tarfile.BLOCKSIZE
            _, name, *kind = member.name.split(".")
            content = view[place : place + member.size]
            arrays[name] = _array(_plain(content) if kind == ["npy", "zst"] else content)
            place += member.size + -member.size % tarfile.BLOCKSIZE
        tokens = Ragged(arrays["tokens"], arrays["offsets"].astype(np.int64))
        return Record(tokens, arrays["expression"], arrays["id"])
    except (tarfile.TarError, KeyError, OSError) as error:
        raise ValueError(f"not a record: {error!r}") from None


def _npy(array: npt.NDArray[Any]) -> list[bytes | memoryview]:
    """An array as a .npy file: its header, and its bytes where they lie."""
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return [header.getvalue(), array.reshape(-1).view(np.uint8).data]


def _array(data: bytes | memoryview) -> npt.NDArray[Any]:
    """The array of a .npy file's bytes, as a view of them."""
    content = io.BytesIO(data[: np.lib.format.MAGIC_LEN + 2 + 2**16])
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        raise ValueError(f"npy version {version}, expected (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    return np.frombuffer(data, dtype, offset=content.tell()).reshape(shape)


def _plain(compressed: memoryview) -> bytes:
    with pa.input_stream(pa.py_buffer(compressed), compression="zstd") as stream:
        plain: bytes = stream.read()
    return plain
