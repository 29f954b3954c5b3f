"""Explained sequences: results of a saturation mutagenesis with the hits of motifs, and their tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from model.interpretation.motifs.scan import MotifHit
from model.interpretation.saturation_mutagenesis import MutagenesisResult
from pipeline.runtime.text import escape_controls

REFERENCE, ALTERNATIVE = "reference", "alternative"
"""Sides of a variant."""


@dataclass(frozen=True)
class ExplainedSequence:
    """A sequence with its results by label, at least one, and its motif hits (None: no motifs were requested)."""

    results: Mapping[str, MutagenesisResult]
    hits: Sequence[MotifHit] | None = None

    @property
    def insert(self) -> str:
        """The insert, which all results share."""
        return next(iter(self.results.values())).insert

    def table(self, label: str, is_named: bool) -> pa.Table:
        """Return MutagenesisResult.table(), then the columns `label` (if it is named) and `motifs` (if requested)."""
        table = self.results[label].table()
        if is_named:
            table = table.append_column("label", _repeat(label, len(table)))
        if self.hits is None:
            return table
        texts = [describe_hits(self.hits, place) for place in range(1, len(self.insert) + 1)]
        places = table["position"].to_numpy() - 1
        return table.append_column("motifs", pa.array([texts[place] for place in places], pa.string()))


@dataclass(frozen=True)
class ExplainedRow:
    """A row of the input. sides: the sequence under an empty name, or both sides of a variant.

    number: of the row, from 1; None for the sequence of the command line. name: of the row, or an empty text.
    """

    sides: Mapping[str, ExplainedSequence]
    number: int | None = None
    name: str = ""

    @property
    def is_variant(self) -> bool:
        """Whether the row is a variant."""
        return ALTERNATIVE in self.sides

    @property
    def title(self) -> str:
        """Return the name, or else the number of the row; empty for the sequence of the command line.

        Control characters are escaped, because an SVG file must have none.
        """
        return escape_controls(self.name) or ("" if self.number is None else f"row {self.number:,}")

    @property
    def main(self) -> ExplainedSequence:
        """Return the sequence, or the reference sequence of a variant."""
        return next(iter(self.sides.values()))

    @property
    def labels(self) -> list[str]:
        """Return the labels that are explained."""
        return list(self.main.results)

    def effect(self, label: str) -> float:
        """Return the predicted effect of the variant."""
        return self.sides[ALTERNATIVE].results[label].prediction - self.sides[REFERENCE].results[label].prediction

    def table(self, several_labels: bool, are_named: bool) -> pa.Table:
        """Return one row per side, label and substitution.

        Columns: row and name (if there are several rows, and if they are named), side (of variants), position,
        reference, base, prediction, effect, label (of several), motifs (if requested).
        """
        return pa.concat_tables(self._tables(several_labels, are_named))

    def _tables(self, several_labels: bool, are_named: bool) -> Iterator[pa.Table]:
        for side, sequence in self.sides.items():
            for label in self.labels:
                table = sequence.table(label, several_labels)
                front: dict[str, pa.Array] = {}
                if self.number is not None:
                    front["row"] = pa.array(np.full(len(table), self.number))
                if are_named:
                    front["name"] = _repeat(self.name, len(table))
                if self.is_variant:
                    front["side"] = _repeat(side, len(table))
                yield pa.Table.from_arrays(
                    [*front.values(), *table.columns], names=[*front, *table.column_names]
                )  # fmt: skip


def _repeat(text: str, rows: int) -> pa.Array:
    return pa.array([text] * rows, pa.string())


def describe_hits(hits: Sequence[MotifHit], place: int) -> str:
    """Write the hits that cover a position of the insert, from 1: `MOTIF:START..END:STRAND:P`, separated by `;`."""
    return ";".join(
        f"{hit.motif.title}:{hit.start}..{hit.end}:{hit.strand}:{hit.p_value:.2g}"
        for hit in hits
        if hit.start <= place <= hit.end
    )


@dataclass(frozen=True)
class AlignedVariant:
    """Inserts of a variant in common columns, with - for a gap. changed: the columns that differ."""

    reference: str
    alternative: str
    changed: list[int]


def align_variant(reference: str, alternative: str) -> AlignedVariant:
    """Align the inserts of a variant: bases that differ are in one column, and gaps end the part that differs.

    Inserts of equal length have no gaps. For others, the part between common prefix and suffix is aligned at its start.
    """
    shortest = min(len(reference), len(alternative))
    prefix = next((i for i in range(shortest) if reference[i] != alternative[i]), shortest)
    most = shortest - prefix
    suffix = next((i for i in range(most) if reference[-1 - i] != alternative[-1 - i]), most)
    width = max(len(reference), len(alternative)) - suffix
    sides = [f"{insert[: len(insert) - suffix]:-<{width}}{insert[len(insert) - suffix :]}" for insert in
             (reference, alternative)]  # fmt: skip
    changed = [column for column, (one, other) in enumerate(zip(*sides, strict=True)) if one != other]
    return AlignedVariant(sides[0], sides[1], changed)


def describe_change(reference: str, alternative: str) -> str:
    """Describe a variant by its position in the insert, such as `G18A`, `18insAC` or `18-20delGCA`."""
    if len(reference) == len(alternative):
        pairs = zip(reference, alternative, strict=True)
        changes = [f"{one}{place}{other}" for place, (one, other) in enumerate(pairs, 1) if one != other]
        return ", ".join(changes) or "no change"
    aligned = align_variant(reference, alternative)
    first, last = aligned.changed[0], aligned.changed[-1] + 1
    old, new = (text[first:last].replace("-", "") for text in (aligned.reference, aligned.alternative))
    if not old:
        return f"{first + 1}ins{new}"
    places = f"{first + 1}" if len(old) == 1 else f"{first + 1}-{first + len(old)}"
    return f"{places}del{old}{f'ins{new}' if new else ''}"
