"""Shards of any shape, written in a moment: promoter i has id 10 i, label i / 2 and a sequence made from i."""

import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.index import Index, RecordEntry, ShardEntry
from pipeline.kmers import Ragged, id_dtype, vocabulary_size
from pipeline.records import Record, append_record

SPLIT = "finetune/train"


def ids_of(number: int, longest: int, k: int) -> np.ndarray:
    """The k-mer ids of promoter `number`: not those of a real sequence, but its own."""
    rng = np.random.default_rng(number)
    return rng.integers(5, vocabulary_size(k), rng.integers(0, longest + 1)).astype(id_dtype(k))


def write_tiny(folder: Path, record_rows: Sequence[Sequence[int]], longest: int = 12, k: int = 3) -> Index:
    """Shards of records of so many promoters each, and their index."""
    shards, number, record_number = [], 0, 0
    for shard_number, sizes in enumerate(record_rows):
        name = f"{SPLIT}-{shard_number:06d}.tar"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bounds = [0]
        with path.open("wb") as file:
            tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            for rows in sizes:
                numbers = np.arange(number, number + rows)
                sequences = [ids_of(int(i), longest, k) for i in numbers]
                offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
                append_record(
                    tar,
                    record_number,
                    Record(
                        Ragged(np.concatenate([np.empty(0, id_dtype(k)), *sequences]), offsets),
                        (numbers / 2).astype(np.float32),
                        numbers * 10,
                    ),
                )
                bounds.append(tar.offset)
                number, record_number = number + rows, record_number + 1
            tar.close()
        data = path.read_bytes()
        records = [
            RecordEntry(start, end - start, rows, hashlib.sha256(data[start:end]).hexdigest())
            for rows, start, end in zip(sizes, bounds[:-1], bounds[1:], strict=True)
        ]
        shards.append(ShardEntry(name, sum(sizes), len(data), hashlib.sha256(data).hexdigest(), records))
    return Index("key", "dataset", k, id_dtype(k).name, "", "", 8, 1.0, 0.0, 1.0, {SPLIT: shards})
