"""Journal to resume an interrupted prediction: values in input order, in a hidden file beside the output.

Each entry holds the predictions of one part after a hash of the model, the part's sequences and the values. An entry is
used only if this hash agrees, so never for other sequences, another model or corrupt values.
"""

import glob
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from model.artifacts.model_directory import model_labels, read_model_facts
from model.prediction.inputs import Part
from model.prediction.predictor import BATCH, Values, default_device
from model.prediction.request import PredictionRequest
from model.prediction.writers import LeaderboardInputError, is_stream, problems_file
from pipeline.io.arrow import view_strings
from pipeline.io.locks import hold_lock

DIGEST_BYTES = 16
"""Bytes of the hash of an entry (BLAKE2b)."""

PredictParts = Callable[[Iterator[Part]], Generator[tuple[Part, Values]]]
"""Predicts parts and yields them in order, each with the predictions of its valid rows."""


class Journal:
    """Journal of one output, written until the output is complete.

    file: open for reading and writing; key: hash of the model and the settings of the forward pass; labels: predictions
    per sequence.
    """

    def __init__(self, file: BinaryIO, key: bytes, labels: int = 1) -> None:
        self._file = file
        self._key = key
        self._labels = labels
        self.rows_resumed = 0
        """Rows of the parts that an interrupted run predicted."""
        self.is_empty = True
        """Whether it holds no prediction, so that removing it loses nothing."""

    def resume(self, parts: Iterator[Part], predict: PredictParts) -> Generator[tuple[Part, Values]]:
        """Yield the leading parts from the journal, then predict the others and append their predictions.

        The values of a part are float32, one per valid row; with several labels (rows, labels).
        """
        rest: Iterator[Part] = iter(())
        for part in parts:
            values = self._read(part.valid_sequences)
            if values is None:
                rest = chain([part], parts)
                break
            self.rows_resumed += len(part)
            self.is_empty &= not len(values)
            yield part, values
        # Called also when no parts remain, because the other ranks wait for the end.
        with closing(predict(rest)) as predicted:
            for part, values in predicted:
                data = values.astype(np.float32).tobytes()
                self._file.write(self._digest(part.valid_sequences, data) + data)
                self._file.flush()  # to the operating system, so that a killed process loses no entry
                self.is_empty &= not len(values)
                yield part, values

    def _read(self, sequences: pa.Array) -> Values | None:
        """Read the next entry. If its hash differs, remove it and all later entries, and return None."""
        start = self._file.tell()
        entry = self._file.read(DIGEST_BYTES + 4 * len(sequences) * self._labels)
        if entry[:DIGEST_BYTES] == self._digest(sequences, entry[DIGEST_BYTES:]):
            values = np.frombuffer(entry, np.float32, offset=DIGEST_BYTES)
            return values if self._labels == 1 else values.reshape(-1, self._labels)
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
    """Open the journal of a request's output, locked against other processes; removed at the end of the block.

    After an error it is kept, unless the next run cannot use it. A stream has no journal. Raises UserError if another
    process predicts into the same output.
    """
    if is_stream(request.output):
        with Path(os.devnull).open("r+b") as nowhere:
            yield Journal(nowhere, b"")
        return
    output = Path(request.output)
    path, lock = (output.with_name(f".{output.name}.{suffix}") for suffix in ("partial", "lock"))
    with hold_lock(lock, f"is predicting into {output}; fix: wait for it, or choose another output: -o NAME"):
        remove_partial_files((output, problems_file(request.output)))
        path.touch()
        with path.open("r+b") as file:
            labels = model_labels(read_model_facts(request.model))
            journal = Journal(file, _model_key(request), len(labels))
            try:
                yield journal
            except BaseException as error:
                if journal.is_empty or isinstance(error, LeaderboardInputError):
                    path.unlink()
                    lock.unlink()
                raise
        path.unlink()
        lock.unlink()


def remove_partial_files(outputs: Iterable[Path]) -> None:
    """Remove the temporary files of outputs that a killed run left; they are written again."""
    for output in outputs:
        for partial in output.parent.glob(f".*.partial.{glob.escape(output.name)}"):
            partial.unlink(missing_ok=True)


def _model_key(request: PredictionRequest) -> bytes:
    """Hash everything that a prediction depends on: the model's files and the settings of the forward pass."""
    key = hashlib.sha256(f"{request.both_strands} {default_device().type} {BATCH}".encode())
    for file in sorted(request.model.iterdir()):
        if file.name == "config.json" or file.suffix in (".safetensors", ".bin"):
            with file.open("rb") as data:
                key.update(file.name.encode() + hashlib.file_digest(data, "sha256").digest())
    return key.digest()
