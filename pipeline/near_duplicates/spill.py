"""Records that exceed the memory: append them to temporary files, and partition them by a hash."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.near_duplicates.packing import Words

CHUNK_BYTES = 1 << 23
"""Bytes of records that are read or partitioned at once."""
MAX_PARTITIONS = 64
"""Files that a partition opens at once."""


@dataclass(frozen=True)
class Workspace:
    """Memory for the records of one search, in bytes, and the folder of its temporary files (None: the system's)."""

    memory_bytes: int = 1 << 30
    folder: Path | str | None = None


class Records:
    """Records of some 64-bit words each: in memory up to a share of the workspace, then in an unnamed file."""

    def __init__(self, width: int, workspace: Workspace) -> None:
        """Create an empty list of records. width: words per record."""
        self.width = width
        self.count = 0
        limit = max(1, workspace.memory_bytes // 8)
        folder = None if workspace.folder is None else str(workspace.folder)
        self._file = tempfile.SpooledTemporaryFile(limit, dir=folder)  # noqa: SIM115 (closed with the object)

    def append(self, records: Words) -> None:
        """Append records: (n, width) uint64."""
        self.count += len(records)
        self._file.write(np.ascontiguousarray(records).data)

    def chunks(self) -> Iterator[Words]:
        """Read the records in order, in chunks: (n, width) uint64. One reader at a time."""
        size = max(1, CHUNK_BYTES // (8 * self.width)) * 8 * self.width
        self._file.seek(0)
        while data := self._file.read(size):
            yield np.frombuffer(data, np.uint64).reshape(-1, self.width)

    def read(self) -> Words:
        """Read all records: (count, width) uint64."""
        return np.concatenate([np.empty((0, self.width), np.uint64), *self.chunks()])

    def close(self) -> None:
        """Delete the records."""
        self._file.close()


def partition(chunks: Iterable[tuple[Words, Words]], width: int, count: int, workspace: Workspace) -> Iterator[Records]:
    """Partition records by the highest bits of their keys; each part is deleted after its use.

    chunks: keys, (n,) uint64, and records, (n, width) uint64; count: number of parts, a power of two. Equal keys are in
    one part.
    """
    parts = [Records(width, Workspace(workspace.memory_bytes // count, workspace.folder)) for _ in range(count)]
    shift = np.uint64(64 - (count.bit_length() - 1)) if count > 1 else None
    for keys, records in chunks:
        if shift is None:
            parts[0].append(records)
            continue
        numbers = (keys >> shift).astype(np.uint8)
        order = np.argsort(numbers, kind="stable")
        ends = np.cumsum(np.bincount(numbers, minlength=count)).tolist()
        for part, start, end in zip(parts, [0, *ends], ends, strict=False):
            part.append(records[order[start:end]])
    for part in parts:
        yield part
        part.close()


def partition_count(size_bytes: int, workspace: Workspace) -> int:
    """Return the number of parts, a power of two, of which each fits into the memory if their sizes are equal."""
    needed = -(-size_bytes // max(1, workspace.memory_bytes))
    return min(MAX_PARTITIONS, 1 << max(0, needed - 1).bit_length())
