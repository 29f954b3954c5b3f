"""Predictions that a killed run has made, kept beside its output until that is whole.

A line with the key of the model and how it is used; then, for each part of the input in its order, how many values, a
CRC-32 of the sequences that they belong to, one of the values, and the values in float32. So what was kept is taken
only where the same sequences come again, and an entry that was cut off is seen.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.io.arrow import string_buffers

Values = npt.NDArray[np.float32]
_HEAD = struct.Struct("<III")


class Journal:
    """An open journal: at first what it holds is taken, part by part; from the first part that it does not hold,
    parts are added."""

    def __init__(self, path: Path, key: str) -> None:
        self.holds_any = False
        """Whether it has a value."""
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._taking = self._file.readline() == _line(key)
        if not self._taking:  # of another model, or new
            self._file.seek(0)
            self._file.truncate()
            self._file.write(_line(key))

    def take(self, sequences: pa.Array) -> Values | None:
        """The values of the next part, or None if they are not here; what follows them is then forgotten."""
        if not self._taking:
            return None
        start = self._file.tell()
        head = self._file.read(_HEAD.size)
        if len(head) == _HEAD.size:
            rows, of_sequences, of_values = _HEAD.unpack(head)
            if rows == len(sequences) and of_sequences == _checksum(sequences):
                data = self._file.read(4 * rows)
                if len(data) == 4 * rows and zlib.crc32(data) == of_values:
                    self.holds_any |= rows > 0
                    return np.frombuffer(data, np.float32)
        self._file.seek(start)
        self._file.truncate()
        self._taking = False
        return None

    def add(self, sequences: pa.Array, values: Values) -> None:
        """Keep the values of the next part. They are with the system when this returns: a kill does not lose them."""
        self.holds_any |= len(values) > 0
        data = values.astype(np.float32).tobytes()
        self._file.write(_HEAD.pack(len(values), _checksum(sequences), zlib.crc32(data)) + data)

    def close(self) -> None:
        """Let go of the file; it stays."""
        self._file.close()


def _line(key: str) -> bytes:
    return f"{key}\n".encode()


def _checksum(sequences: pa.Array) -> int:
    text, _, lengths = string_buffers(sequences)
    return zlib.crc32(lengths.tobytes(), zlib.crc32(text.tobytes()))
