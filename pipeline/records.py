"""A record: about 4,096 promoters as four .npy members of a tar, readable by plain webdataset.

    KEY.tokens.npy      ids of all promoters end to end (uint8, uint16 or uint32), one a base
    KEY.offsets.npy     promoter i is tokens[offsets[i]:offsets[i + 1]] (uint32, one more than promoters)
    KEY.expression.npy  labels (float32)
    KEY.id.npy          promoters.id of the dataset (int64)

Written with the standard library's tarfile: webdataset's own writer imports torch, seconds in each writer
process, and hides where a record begins. Owner, mode and time are fixed, so equal arrays give equal bytes.
"""

import io
import tarfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.kmers import Ragged

MEMBERS = ("tokens", "offsets", "expression", "id")


@dataclass(frozen=True)
class Record:
    """Some promoters: their ids one a base, labels and dataset ids."""

    tokens: Ragged
    expression: npt.NDArray[np.float32]
    id: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.id)


def append_record(tar: tarfile.TarFile, number: int, record: Record) -> None:
    """Write a record's members at the end of an open tar. number: of the record in its split."""
    arrays = {
        "tokens": record.tokens.values,
        "offsets": record.tokens.offsets.astype(np.uint32),
        "expression": record.expression,
        "id": record.id,
    }
    for name in MEMBERS:
        content = io.BytesIO()
        np.lib.format.write_array(content, np.ascontiguousarray(arrays[name]), allow_pickle=False)
        member = tarfile.TarInfo(f"{number:09d}.{name}.npy")
        member.size = content.tell()
        member.mode, member.mtime, member.uname, member.gname = 0o444, 0, "root", "root"
        content.seek(0)
        tar.addfile(member, content)


def parse_record(data: bytes) -> Record:
    """A record from the bytes of its members, as they lie in the tar."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                arrays[member.name.split(".")[1]] = _read_npy(content.read())
    tokens = Ragged(arrays["tokens"], arrays["offsets"].astype(np.int64))
    return Record(tokens, arrays["expression"], arrays["id"])


def _read_npy(data: bytes) -> npt.NDArray[Any]:
    content = io.BytesIO(data)
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        raise ValueError(f"npy version {version}, expected (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    return np.frombuffer(data, dtype, offset=content.tell()).reshape(shape)
