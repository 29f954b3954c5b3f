"""Some promoters of a folder of shards, decoded back to bases: what training reads, for the eye."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.shards.index import Index
from pipeline.shards.record_reader import read_record
from pipeline.tokens.kmers import text_of_ids


@dataclass(frozen=True)
class Peeked:
    """A promoter as it lies in a shard. expression: None where there is no label; extended: its bases with the flanks;
    tokens: the first ids of frame 0."""

    file: str
    record: int
    id: int
    expression: float | None
    extended: str
    tokens: list[int]


SHOWN_TOKENS = 8


def peek(folder: Path | str, index: Index, split: str | None = None, promoters: int = 5) -> list[Peeked]:
    """The first promoters of a split, from its first shards. Raises UserError where the split is not there.

    split: finetune/train if none is given, or the first one that was written.
    """
    if split is None:
        split = next((name for name in ("finetune/train", *index.splits) if name in index.splits), "finetune/train")
    if split not in index.splits:
        raise UserError(f"{folder}: no split {split}; it has {', '.join(index.splits)}")
    found: list[Peeked] = []
    for shard in index.splits[split]:
        for number in range(len(shard.records)):
            record = read_record(folder, shard, number)
            for row in range(min(len(record), promoters - len(found))):
                ids = record.tokens.row(row)
                found.append(
                    Peeked(
                        file=shard.file,
                        record=number,
                        id=int(record.id[row]),
                        expression=None if np.isnan(record.expression[row]) else float(record.expression[row]),
                        extended=text_of_ids(ids, index.k),
                        tokens=[int(token) for token in ids[:: index.k][:SHOWN_TOKENS]],
                    )
                )
            if len(found) == promoters:
                return found
    return found


def insert_shown(promoter: Peeked, index: Index) -> str:
    """The bases with a bar between flanks and insert; long flanks cut short to ten bases beside the insert."""
    left, right = len(index.left_flank), len(index.right_flank)
    bases = promoter.extended
    insert = bases[left : len(bases) - right]
    before, after = bases[:left], bases[len(bases) - right :]
    cut = 10
    return "|".join(
        [f"...{before[-cut:]}" if left > cut else before, insert, f"{after[:cut]}..." if right > cut else after]
    )
