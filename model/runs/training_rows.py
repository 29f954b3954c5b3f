"""Find rows whose sequence the model was fine-tuned on, by a join of hashes in the dataset of its run."""

from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.runs.read import read_run
from pipeline.dataset.database import open_dataset_of_key
from pipeline.errors import UserError

BUFFER_ROWS = 65_536
"""Rows that are hashed together: a query for each small part would cost more than its hashes."""
HASHES = "select hash(sequence) as hash from (select row_number() over () as row, sequence from part) order by row"
TRAINING_ROWS = """
    select row from rows
    semi join (select hash(sequence) as hash from finetune where split = 'train') using (hash)
"""


class SequenceHashes:
    """Collects the 64-bit hashes of sequences, in the order in which they are added."""

    def __init__(self) -> None:
        self._buffer: list[pa.Array | pa.ChunkedArray] = []
        self._hashes = [np.empty(0, np.uint64)]

    def add(self, sequences: pa.Array | pa.ChunkedArray) -> None:
        """Add strings; null is allowed, and is the sequence of no promoter."""
        self._buffer.append(sequences)
        if sum(map(len, self._buffer)) >= BUFFER_ROWS:
            self._hash_buffer()

    def read(self) -> npt.NDArray[np.uint64]:
        """Return the hashes of all sequences: uint64 (rows,)."""
        self._hash_buffer()
        return np.concatenate(self._hashes)

    def _hash_buffer(self) -> None:
        chunks = [chunk for part in self._buffer for chunk in getattr(part, "chunks", [part])]
        with duckdb.connect() as connection:
            connection.register("part", pa.table({"sequence": pa.chunked_array(chunks, pa.string())}))
            self._hashes.append(connection.sql(HASHES).fetchnumpy()["hash"])
        self._buffer.clear()


def find_training_rows(model: Path, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return whether each sequence is one of the fine-tuning training split of a model's run: bool (rows,).

    model: its folder in the run directory. hashes: of the sequences after repairs, uint64 (rows,). Raises UserError if
    there is no run directory, and if the dataset of the run is missing, unreadable or another one by now.
    """
    run = read_run(model)
    found = np.zeros(len(hashes), np.bool_)
    with open_dataset_of_key(run.dataset_candidates, run.facts["dataset_key"]) as connection:
        if connection is None:
            places = " or ".join(map(str, run.dataset_candidates))
            raise UserError(f"{places}: not the dataset of the training; it was moved, removed or built again")
        connection.register("rows", pa.table({"row": np.arange(len(hashes)), "hash": hashes}))
        found[connection.sql(TRAINING_ROWS).fetchnumpy()["row"]] = True
    return found
