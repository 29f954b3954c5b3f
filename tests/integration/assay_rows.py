"""Made-up rows in the form of published reporter assays: tables of 30 rows and FASTA files."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROWS = 30
Column = Callable[[int], object]
"""Value of a row by its number."""


def bases(length: int, seed: int = 0, alphabet: str = "ACGT") -> Column:
    """Make a column of random sequences; the sequence of a row depends on its number only."""
    return lambda row: "".join(random.Random(f"{seed} {row}").choices(alphabet, k=length))


def label(seed: int, low: float = -3.0, high: float = 3.0) -> Column:
    """Make a column of random numbers."""
    return lambda row: f"{random.Random(f'label {seed} {row}').uniform(low, high):.6f}"


def cycle(*values: object) -> Column:
    """Make a column that repeats its values."""
    return lambda row: values[row % len(values)]


def name(row: int) -> str:
    """Name a row, as in a column of names."""
    return f"element{row}"


def write_table(path: Path, columns: Mapping[str, Column], rows: Sequence[int] = range(ROWS)) -> Path:
    """Write a tab-separated table with a header line."""
    lines = [list(columns), *([str(column(row)) for column in columns.values()] for row in rows)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return path


def write_parts(path: Path, columns: Mapping[str, Column]) -> dict[str, Path]:
    """Write a table as one file per split: 20 rows to train on, 5 for validation and 5 for testing."""
    parts = {"train": range(20), "valid": range(20, 25), "test": range(25, 30)}
    return {
        split: write_table(path.with_name(f"{path.stem}_{split}{path.suffix}"), columns, rows)
        for split, rows in parts.items()
    }


def adapted(left: str, column: Column, right: str) -> Column:
    """Add adapters to a column of sequences."""
    return lambda row: f"{left}{column(row)}{right}"


SPLIT = cycle("train", "train", "train", "val", "test")
"""A column of splits: 18 rows to train on, 6 for validation and 6 for testing."""
HUMAN = {
    "seq_id": name,
    "seq": adapted("AGGACCGGATCAACT", bases(200), "CATTGCGTGAACCGA"),
    "mean_value": label(1),
    "fold": cycle(*range(10)),
}
FLY = {
    "seqnames": cycle("chr2L", "chr2R", "chr3L"),
    "start": lambda row: 500 * row + 1,
    "end": lambda row: 500 * row + 249,
    "ID": name,
    "set": cycle("Train", "Train", "Train", "Val", "Test"),
    "Sequence": bases(249),
    "Dev_log2_enrichment": label(1),
    "Hk_log2_enrichment": label(2),
}
PLANT = {
    "set": cycle("test"),
    "sp": cycle("At", "Zm", "Sb"),
    "gene": name,
    "sequence": bases(170),
    "enrichment": label(1),
}
GENERIC = {"name": name, "sequence": lambda row: bases(50 + 30 * row)(row), "activity": label(1)}
