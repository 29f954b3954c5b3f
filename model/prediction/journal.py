"""Resume a killed prediction: values in the order of the input, in a hidden file beside the output.

Each entry holds the predictions of one part behind a digest of the model, the part's sequences and the values. So an
entry is used only for the same sequences and model, and a torn entry does not pass for a whole one.
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
from model.prediction.output import problems_file
from model.prediction.predictor import BATCH, PredictorSpec, Values, default_device
from model.prediction.writers import RefusedError, is_stream
from pipeline.io.arrow import string_buffers
from pipeline.io.locks import hold_lock

DIGEST_BYTES = 16

Predict = Callable[[Iterator[Part]], Generator[tuple[Part, Values]]]
"""Predicts parts and yields them in their order, each with the values of its usable rows."""


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
        """Yield the leading parts from the journal, then predict the others and add each to it."""
        rest: Iterator[Part] = iter(())
        for part in parts:
            values = self._read(part.usable)
            if values is None:
                rest = chain([part], parts)
                break
            self.rows_resumed += len(part)
            yield part, values
        # Called also where nothing is left to predict: other ranks wait for the end.
        with closing(predict(rest)) as predicted:
            for part, values in predicted:
                self._append(part.usable, values)
                yield part, values

    def _read(self, sequences: pa.Array) -> Values | None:
        """Read the next entry; where it is not of these sequences, drop it with all that follow."""
        start = self._file.tell()
        entry = self._file.read(DIGEST_BYTES + 4 * len(sequences))
        if entry[:DIGEST_BYTES] == self._digest(sequences, entry[DIGEST_BYTES:]):
            self.is_empty &= not len(sequences)
            return np.frombuffer(entry, np.float32, offset=DIGEST_BYTES)
        if entry:
            self._file.seek(start)
            self._file.truncate()
        return None

    def _append(self, sequences: pa.Array, values: Values) -> None:
        """Append an entry. The system has it when this returns: a kill does not lose it."""
        self.is_empty &= not len(values)
        data = values.astype(np.float32).tobytes()
        self._file.write(self._digest(sequences, data) + data)
        self._file.flush()

    def _digest(self, sequences: pa.Array, values: bytes) -> bytes:
        bases, _, lengths = string_buffers(sequences)
        digest = hashlib.blake2b(key=self._key, digest_size=DIGEST_BYTES)
        for data in (lengths.tobytes(), bases.tobytes(), values):
            digest.update(data)
        return digest.digest()


@contextmanager
def open_journal(output_name: str, spec: PredictorSpec) -> Iterator[Journal]:
    """Open the journal of an output, locked against other processes; removed when the block ends.

    After an error it is kept, unless it holds nothing that the next run could use. That of a stream is kept nowhere.
    """
    if is_stream(output_name):
        with Path(os.devnull).open("r+b") as nowhere:
            yield Journal(nowhere, b"")
        return
    output = Path(output_name)
    path, lock = (output.with_name(f".{output.name}.{suffix}") for suffix in ("partial", "lock"))
    with hold_lock(lock, f"is predicting into {output}; wait for it, or name another output"):
        _remove_partial_outputs(output)
        path.touch()
        with path.open("r+b") as file:
            journal = Journal(file, _model_key(spec))
            try:
                yield journal
            except BaseException as error:
                if journal.is_empty or isinstance(error, RefusedError):
                    path.unlink()
                    lock.unlink()
                raise
        path.unlink()
        lock.unlink()


def _remove_partial_outputs(output: Path) -> None:
    """Remove what a kill left of the output itself: it is written again from the journal."""
    for path in (output, problems_file(str(output))):
        for partial in path.parent.glob(f".*.partial.{glob.escape(path.name)}"):
            partial.unlink(missing_ok=True)


def _model_key(spec: PredictorSpec) -> bytes:
    """Hash all that decides the prediction of a sequence: the model's files, and how they are used."""
    key = hashlib.sha256(f"{spec.both_strands} {default_device().type} {BATCH}".encode())
    for file in sorted(spec.folder.iterdir()):
        if file.name == "config.json" or file.suffix in (".safetensors", ".bin"):
            with file.open("rb") as data:
                key.update(file.name.encode() + hashlib.file_digest(data, "sha256").digest())
    return key.digest()
