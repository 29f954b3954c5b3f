"""Small shards of any shape: promoter i has id 10 i, label i / 2 and random ids with seed i.

Several labels: label j of promoter i is i / 2 + j, and missing if i + j is a multiple of 3.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.shards.index import FORMAT, Index, RecordEntry, ShardEntry
from pipeline.shards.records import END, Record, serialize_record
from pipeline.tokens.kmers import Ragged, id_dtype, vocabulary_size

SPLIT = "finetune/train"


def ids_of(number: int, longest: int, k: int) -> np.ndarray:
    """Draw the k-mer ids of promoter `number`; they are not those of a sequence."""
    rng = np.random.default_rng(number)
    return rng.integers(5, vocabulary_size(k), rng.integers(0, longest + 1)).astype(id_dtype(k))


def labels_of(numbers: np.ndarray, labels: int) -> np.ndarray:
    """Make the labels of promoters: (rows,), or (rows, labels) for several."""
    if not labels:
        return (numbers / 2).astype(np.float32)
    columns = np.arange(labels)
    values = numbers[:, None] / 2 + columns
    return np.where((numbers[:, None] + columns) % 3, values, np.nan).astype(np.float32)


def write_tiny(
    folder: Path,
    record_rows: Sequence[Sequence[int]],
    longest: int = 12,
    k: int = 3,
    zstd: bool = False,
    labels: Sequence[str] = (),
) -> Index:
    """Write shards whose records have the given numbers of promoters; return their index."""
    shards, number, record_number = [], 0, 0
    for shard_number, sizes in enumerate(record_rows):
        name = f"{SPLIT}-{shard_number:06d}.tar"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data, records = b"", []
        for rows in sizes:
            numbers = np.arange(number, number + rows)
            sequences = [ids_of(int(i), longest, k) for i in numbers]
            offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
            tokens = Ragged(np.concatenate([np.empty(0, id_dtype(k)), *sequences]), offsets)
            record = Record(tokens, labels_of(numbers, len(labels)), numbers * 10)
            written = b"".join(serialize_record(record_number, record, zstd))
            records.append(RecordEntry(len(data), len(written), rows, zlib.crc32(written)))
            data += written
            number, record_number = number + rows, record_number + 1
        data += END
        path.write_bytes(data)
        shards.append(ShardEntry(name, sum(sizes), len(data), hashlib.sha256(data).hexdigest(), records))
    parts = ["dataset", k, "", "", 8, 1.0, "zstd" if zstd else "none"]
    names = [list(labels)] if labels else []
    key = hashlib.sha256(json.dumps([FORMAT, *parts, *names]).encode()).hexdigest()
    dataset_key, *settings = parts
    scale = ([0.0] * len(labels), [1.0] * len(labels)) if labels else (0.0, 1.0)
    return Index(key, dataset_key, k, id_dtype(k).name, *settings[1:], *scale, {SPLIT: shards}, labels=list(labels))
