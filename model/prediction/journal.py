"""Resume a killed prediction: values in the order of the input, in a hidden file beside the output.

Each entry holds the predictions of one part behind a digest of the model, the part's sequences and the values. So an
entry is used only for the same sequences and model, and a corrupt entry never.
"""

import glob
import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from model.prediction.inputs import Part
from model.prediction.predictor import BATCH, Values, default_device
from model.prediction.request import PredictionRequest
from model.prediction.writers import RefusedError, is_stream, problems_file
from pipeline.io.arrow import view_strings
from pipeline.io.locks import hold_lock

DIGEST_BYTES = 16

Predict = Callable[[Iterator[Part]], Generator[tuple[Part, Values]]]
"""Predicts parts and yields them in order, each with the values of its usable rows."""


class Journal:
    """The journal of one output, written while the output is not complete. file: opened for reading and writing."""

    def __init__(self, file: BinaryIO, key: bytes) -> None:
        self._file = file
        self._key = key
        self.rows_resumed = 0
        """Rows of the parts that an earlier run predicted."""
        self.is_empty = True
        """Whether it holds no value, so that nothing is lost with it."""

    def resume(self, parts: Iterator[Part], predict: Predict) -> Generator[tuple[Part, Values]]:
        """Yield the leading parts from the journal, then predict the others and append each."""
        rest: Iterator[Part] = iter(())
        for part in parts:
            values = self._read(part.usable)
            if values is None:
                rest = chain([part], parts)
                break
            self.rows_resumed += len(part)
            self.is_empty &= not len(values)
            yield part, values
        # Called also where nothing is left to predict: other ranks wait for the end.
        with closing(predict(rest)) as predicted:
            for part, values in predicted:
                data = values.astype(np.float32).tobytes()
                self._file.write(self._digest(part.usable, data) + data)
                self._file.flush()  # to the system, so that a kill does not lose it
                self.is_empty &= not len(values)
                yield part, values

    def _read(self, sequences: pa.Array) -> Values | None:
        """Read the next entry. If it is not of these sequences, drop it with all that follow, and return None."""
        start = self._file.tell()
        entry = self._file.read(DIGEST_BYTES + 4 * len(sequences))
        if entry[:DIGEST_BYTES] == self._digest(sequences, entry[DIGEST_BYTES:]):
            return np.frombuffer(entry, np.float32, offset=DIGEST_BYTES)
        if entry:
            self._file.seek(start)
            self._file.truncate()
        return None

    def _digest(self, sequences: pa.Array, values: bytes) -> bytes:
        bases, _, lengths = view_strings(sequences)
        digest = hashlib.blake2b(key=self._key, digest_size=DIGEST_BYTES)
        for data in (lengths.tobytes(), bases.tobytes(), values):
            digest.update(data)
        return digest.digest()


@contextmanager
def open_journal(request: PredictionRequest) -> Iterator[Journal]:
    """Open the journal of a request's output, locked against other processes; removed when the block ends.

    After an error it is kept, unless it holds nothing that the next run could use. A stream has no journal.
    """
    if is_stream(request.output):
        with Path(os.devnull).open("r+b") as nowhere:
            yield Journal(nowhere, b"")
        return
    output = Path(request.output)
    path, lock = (output.with_name(f".{output.name}.{suffix}") for suffix in ("partial", "lock"))
    with hold_lock(lock, f"is predicting into {output}; wait for it, or name another output"):
        for written in (output, problems_file(request.output)):  # what a kill left is written again from the journal
            for partial in written.parent.glob(f".*.partial.{glob.escape(written.name)}"):
                partial.unlink(missing_ok=True)
        path.touch()
        with path.open("r+b") as file:
            journal = Journal(file, _model_key(request))
            try:
                yield journal
            except BaseException as error:
                if journal.is_empty or isinstance(error, RefusedError):
                    path.unlink()
                    lock.unlink()
                raise
        path.unlink()
        lock.unlink()


def _model_key(request: PredictionRequest) -> bytes:
    """Hash all that determines a prediction: the model's files, and the settings of the forward pass."""
    key = hashlib.sha256(f"{request.both_strands} {default_device().type} {BATCH}".encode())
    for file in sorted(request.model.iterdir()):
        if file.name == "config.json" or file.suffix in (".safetensors", ".bin"):
            with file.open("rb") as data:
                key.update(file.name.encode() + hashlib.file_digest(data, "sha256").digest())
    return key.digest()
