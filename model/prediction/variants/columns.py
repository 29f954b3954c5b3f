"""Choose the columns of a table of variants: two sequences per row, or a sequence with position and alleles."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from model.prediction.variants.alleles import EMPTY_ALLELES
from pipeline.dataset.input.cells import Table, is_dna, is_missing, is_sequence, is_short_dna
from pipeline.dataset.input.columns import SEQUENCE_NAMES, find_field
from pipeline.errors import UserError

REFERENCE_NAMES = ("ref", "reference", "wt", "wildtype")
ALTERNATIVE_NAMES = ("alt", "alternative", "alternate", "mut", "mutant")
POSITION_NAMES = ("position", "pos", "variantposition", "variantpos")
ZERO_BASED_NAMES = ("variantpos",)
"""IGVF tables of measured variants count positions from 0 in a column of this name."""
_NOUNS = ("", "allele", "sequence", "seq", "base")


@dataclass(frozen=True)
class VariantColumns:
    """Columns requested by their names, or by their numbers from 1. first_position: number of the first base.

    effects: columns of measured effects, in the order of the model's labels.
    """

    reference: str | None = None
    alternative: str | None = None
    sequence: str | None = None
    position: str | None = None
    first_position: int | None = None
    effects: tuple[str, ...] = ()


@dataclass(frozen=True)
class VariantLayout:
    """The chosen columns, by number from 1.

    sequence, position: 0 if reference and alternative are whole sequences. first_position: 1 or 0.
    """

    reference: int
    alternative: int
    sequence: int
    position: int
    first_position: int
    effects: tuple[int, ...]

    @property
    def main_sequence(self) -> int:
        """The column of the reference sequence."""
        return self.sequence or self.reference

    def names_by_role(self, names: Sequence[str]) -> dict[str, str]:
        """Return the names of the chosen columns by their role. names: of all columns, in order."""
        fields = {"reference": self.reference, "alternative": self.alternative}
        if self.position:
            fields |= {"sequence": self.sequence, "position": self.position}
        return {role: names[number - 1] for role, number in fields.items()}


def choose_variant_columns(head: Table, columns: VariantColumns) -> VariantLayout:
    """Choose the columns of reference and alternative by their names, and tell sequences from alleles by their cells.

    Raises UserError for a column that does not exist, and for a choice that is ambiguous.
    """
    effects = tuple(find_field(head, name) for name in columns.effects)
    if columns.position is None and columns.sequence is None:
        reference, alternative = _choose_pair(head, columns, alleles=False)
        if _holds_sequences(head, reference) and _holds_sequences(head, alternative):
            return VariantLayout(reference, alternative, 0, 0, 1, effects)
    reference, alternative = _choose_pair(head, columns, alleles=True)
    sequence = _choose_sequence(head, columns.sequence, {reference, alternative})
    position = _choose_position(head, columns.position)
    first = columns.first_position
    if first is None:
        first = 0 if _plain(head.name(position)) in ZERO_BASED_NAMES else 1
    return VariantLayout(reference, alternative, sequence, position, first, effects)


def _plain(name: str) -> str:
    """Return a name without case and punctuation: refAllele, ref_allele and Ref.Allele are one name."""
    return re.sub(r"[\W_]", "", name).casefold()


def _choose_pair(head: Table, columns: VariantColumns, alleles: bool) -> tuple[int, int]:
    """Choose the columns of reference and alternative. alleles: prefer alleles, else sequences, if there are both."""
    reference = _choose(head, columns.reference, REFERENCE_NAMES, alleles, "reference", "--ref-column")
    alternative = _choose(head, columns.alternative, ALTERNATIVE_NAMES, alleles, "alternative", "--alt-column")
    if reference == alternative:
        raise UserError(f"{head.file}: {head.title(reference)} cannot be both the reference and the alternative")
    return reference, alternative


def _choose(head: Table, requested: str | None, names: tuple[str, ...], alleles: bool, title: str, option: str) -> int:
    if requested is not None:
        return find_field(head, requested)
    known = {plain for name in names for noun in _NOUNS for plain in (f"{name}{noun}", f"{noun}{name}")}
    named = [field for field in head.fields if _plain(head.name(field)) in known]
    bases = [field for field in named if head.mean(field, _is_allele) > 0.5]
    preferred = [field for field in bases if _holds_sequences(head, field) != alleles]
    fields = preferred or bases or named
    if len(fields) == 1:
        return fields[0]
    got = ", ".join(map(head.title, fields)) or ", ".join(head.header) or f"{head.width} columns without a header line"
    problem = f"ambiguous {title} column" if fields else f"no column of {title} sequences or alleles"
    raise UserError(f"{head.file}: {problem}; got {got}; fix: {option} NAME")


def _is_allele(cell: str) -> bool:
    return is_dna(cell) or is_missing(cell) or cell in EMPTY_ALLELES


def _holds_sequences(head: Table, field: int) -> bool:
    """Whether most cells of a column hold DNA that is long enough for a promoter."""
    return head.mean(field, lambda cell: is_sequence(cell) and not is_short_dna(cell)) > 0.5


def _choose_sequence(head: Table, requested: str | None, alleles: set[int]) -> int:
    if requested is not None:
        return find_field(head, requested)
    fields = [field for field in head.fields if field not in alleles and _holds_sequences(head, field)]
    named = [field for field in fields if head.name(field).lower() in SEQUENCE_NAMES]
    fields = named or fields
    if len(fields) == 1:
        return fields[0]
    if fields:
        names = ", ".join(map(head.title, fields))
        raise UserError(f"{head.file}: ambiguous columns of sequences {names}; fix: --sequence-column NAME")
    titles = " and ".join(map(head.title, sorted(alleles)))
    raise UserError(
        f"{head.file}: {titles} hold alleles, and no column holds the sequences that they are in; expected the tested "
        "sequence in each row; fix: add it, and the position of the variant in it, or two columns of whole sequences"
    )


def _choose_position(head: Table, requested: str | None) -> int:
    if requested is not None:
        return find_field(head, requested)
    fields = [field for field in head.fields if _plain(head.name(field)) in POSITION_NAMES]
    if len(fields) == 1:
        return fields[0]
    names = ", ".join(map(head.title, fields)) or "none"
    raise UserError(
        f"{head.file}: expected one column of positions in the sequence, got {names}; fix: --position-column NAME"
    )
