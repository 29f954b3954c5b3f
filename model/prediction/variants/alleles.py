"""Apply variants, given as position, reference allele and alternative allele, to a sequence."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.dataset.input.cells import MISSING_LABELS
from pipeline.runtime.text import shorten

SEPARATOR = ";"
"""Separates the variants of one row, which are applied together."""
EMPTY_ALLELES = ("", "-", "0")
"""No bases: the reference allele of an insertion, the alternative allele of a deletion. IGVF tables write 0."""
NO_POSITION = "position is not a whole number"
NO_ALLELE = "no allele"
OUT_OF_RANGE = "position outside the sequence"
MISMATCH = "reference allele is not in the sequence at this position"
SEVERAL_ALLELES = "several alternative alleles; expected one row per allele"
UNEQUAL_LISTS = "different numbers of positions and alleles"
OVERLAP = "variants of one row overlap"


@dataclass(frozen=True)
class Variant:
    """Replacement of a reference allele in a sequence. start: its first base, from 0."""

    start: int
    reference: str
    alternative: str


class VariantError(ValueError):
    """Variant that cannot be applied to its sequence. reason: one of the texts above; place: where, for a list."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


def parse_variants(positions: str, references: str, alternatives: str, first_position: int) -> list[Variant]:
    """Parse the cells of a row: one variant, or several that SEPARATOR separates.

    first_position: number of a sequence's first base, 1 or 0. Raises VariantError for an invalid cell.
    """
    lists = [[cell.strip() for cell in cells.split(SEPARATOR)] for cells in (positions, references, alternatives)]
    if len({len(cells) for cells in lists}) > 1:
        raise VariantError(UNEQUAL_LISTS)
    columns = zip(*lists, strict=True)
    return [_parse(position, reference, alternative, first_position) for position, reference, alternative in columns]


def _parse(position: str, reference: str, alternative: str, first_position: int) -> Variant:
    number = position.removesuffix(".0")  # pandas writes a column of whole numbers with a gap so
    if not number.removeprefix("-").isdecimal() or not number.isascii():
        raise VariantError(NO_POSITION, repr(position[:40]))
    if "," in alternative:
        raise VariantError(SEVERAL_ALLELES, repr(alternative[:40]))
    alleles = ["" if allele in EMPTY_ALLELES else allele for allele in (reference, alternative)]
    if not any(alleles) or any(allele and allele.lower() in MISSING_LABELS for allele in alleles):
        raise VariantError(NO_ALLELE)
    return Variant(int(number) - first_position, *alleles)


def apply_variants(sequence: str, variants: Iterable[Variant], first_position: int = 1) -> str:
    """Apply variants that do not overlap to a sequence.

    Alleles are compared in any case, and U equals T. Raises VariantError for a position outside the sequence, for a
    reference allele that is not there, and for variants that overlap.
    """
    pieces, end = list[str](), 0
    for variant in sorted(variants, key=lambda variant: (variant.start, len(variant.reference))):
        start, reference = variant.start, variant.reference
        if not 0 <= start <= len(sequence) or (reference and start == len(sequence)):
            raise VariantError(OUT_OF_RANGE, f"{start + first_position} of {len(sequence):,} bases")
        if start < end:
            raise VariantError(OVERLAP, f"at {start + first_position}")
        if not is_allele_at(sequence, start, reference):
            there = sequence[start : start + len(reference)]
            raise VariantError(
                MISMATCH, f"{shorten(there, 20)!r} at {start + first_position}, not {shorten(reference, 20)!r}"
            )
        pieces += [sequence[end:start], variant.alternative]
        end = start + len(reference)
    return "".join([*pieces, sequence[end:]])


def is_allele_at(sequence: str, start: int, allele: str) -> bool:
    """Return whether an allele is in a sequence at a base, from 0; case and U instead of T do not matter."""
    there = sequence[start : start + len(allele)] if start >= 0 else ""
    return there.upper().replace("U", "T") == allele.upper().replace("U", "T")
