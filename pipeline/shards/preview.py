"""Preview of shards: the first promoters, decoded to bases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.shards.index import Index
from pipeline.shards.records import read_record
from pipeline.tokens.kmers import decode_ids

SHOWN_TOKENS = 8
"""Tokens per promoter in a preview."""
SHOWN_FLANK = 10
"""Bases of each flank in a preview, next to the insert."""


@dataclass(frozen=True)
class PreviewRow:
    """One promoter of a shard.

    file, record: its shard, and number of its record; id: of the dataset; expression: None without a label, a
    dictionary by name for several labels; extended: its bases with the flanks; tokens: the first ids of frame 0.
    """

    file: str
    record: int
    id: int
    expression: float | dict[str, float | None] | None
    extended: str
    tokens: list[int]


def peek(folder: Path | str, index: Index, split: str | None = None, promoters: int = 5) -> list[PreviewRow]:
    """Decode the first promoters of a split.

    split: finetune/train by default, else the first split of the index. Raises UserError if the index lacks the split,
    or if a record is missing or corrupt.
    """
    if split is None:
        split = next((name for name in ("finetune/train", *index.splits) if name in index.splits), "finetune/train")
    if split not in index.splits:
        raise UserError(f"{folder}: no split {split}; expected one of {', '.join(index.splits)}")
    rows: list[PreviewRow] = []
    for shard in index.splits[split]:
        for number in range(len(shard.records)):
            record = read_record(folder, shard, number, index.k, index.label_count)
            for row in range(min(len(record), promoters - len(rows))):
                ids = record.tokens.row(row)
                rows.append(
                    PreviewRow(
                        file=shard.file,
                        record=number,
                        id=int(record.id[row]),
                        expression=_show_labels(record.expression[row], index.labels),
                        extended=decode_ids(ids, index.k),
                        tokens=ids[:: index.k][:SHOWN_TOKENS].tolist(),
                    )
                )
            if len(rows) == promoters:
                return rows
    return rows


def _show_labels(values: npt.NDArray[np.float32], names: Sequence[str]) -> float | dict[str, float | None] | None:
    """Convert the labels of a promoter, () or (labels,), for JSON: a number, or a dictionary; None if missing."""
    plain = [None if np.isnan(value) else float(value) for value in np.atleast_1d(values)]
    return dict(zip(names, plain, strict=True)) if names else plain[0]


def format_insert(promoter: PreviewRow, index: Index) -> str:
    """Format the bases of a promoter, with bars between flanks and insert. Flanks are cut to ten bases."""
    left, right = len(index.left_flank), len(index.right_flank)
    bases = promoter.extended
    before, insert, after = bases[:left], bases[left : len(bases) - right], bases[len(bases) - right :]
    if left > SHOWN_FLANK:
        before = f"...{before[-SHOWN_FLANK:]}"
    if right > SHOWN_FLANK:
        after = f"{after[:SHOWN_FLANK]}..."
    return f"{before}|{insert}|{after}"
