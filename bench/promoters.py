"""Random promoters of the yeast assay, all of one length, and their k-mer ids: input of benchmarks."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.config import load_config
from pipeline.config.schema import DEFAULT_CONFIG, Assay
from pipeline.tokens.kmers import encode_promoters

ASSAY: Assay = load_config(DEFAULT_CONFIG).assay
RECORD = 4096
"""Promoters per call, as in a record of the shards."""


def promoters(rows: int, insert: int, seed: int = 0) -> pa.StringArray:
    """Generate random promoters: strings (rows,). insert: bases between the adapters."""
    bases = np.frombuffer(b"ACGT", np.uint8)
    left, right = (np.frombuffer(text.encode(), np.uint8) for text in (ASSAY.left_adapter, ASSAY.right_adapter))
    width = len(left) + insert + len(right)
    text = np.empty((rows, width), np.uint8)
    text[:, : len(left)], text[:, width - len(right) :] = left, right
    numbers = np.random.default_rng(seed).integers(0, 4, (rows, insert), np.uint8)
    text[:, len(left) : width - len(right)] = bases[numbers]
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(text))


def split_calls(column: pa.Array) -> list[pa.Array]:
    """Split a column into arrays of RECORD rows, one per call."""
    return [pa.concat_arrays([column.slice(start, RECORD)]) for start in range(0, len(column), RECORD)]


def extend(column: pa.Array) -> list[str]:
    """Replace the adapters of promoters by the flanks of the assay."""
    left, right = len(ASSAY.left_adapter), len(ASSAY.right_adapter)
    return [ASSAY.left_flank + text[left : len(text) - right] + ASSAY.right_flank for text in column.to_pylist()]


def write_tsv(path: Path, column: pa.Array, seed: int = 0) -> None:
    """Write promoters in the format of the DREAM Challenge, with random labels."""
    labels = np.random.default_rng(seed).uniform(0, 17, len(column)).round(6)
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{text}\t{label}\n" for text, label in zip(column.to_pylist(), labels, strict=True))


def encode(column: pa.Array, k: int) -> npt.NDArray[np.unsignedinteger]:
    """Encode promoters of one length as k-mer ids: (rows, bases)."""
    blocks = [encode_promoters(part, ASSAY, k) for part in split_calls(column)]
    return np.concatenate([block.values.reshape(len(block), -1) for block in blocks])
