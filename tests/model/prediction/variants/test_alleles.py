"""Variants are applied to a sequence as a reader of the table would do it by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.prediction.variants.alleles import (
    MISMATCH,
    NO_ALLELE,
    NO_POSITION,
    OUT_OF_RANGE,
    OVERLAP,
    SEVERAL_ALLELES,
    UNEQUAL_LISTS,
    Variant,
    VariantError,
    apply_variants,
    parse_variants,
)

BASES = st.text("ACGT", max_size=4)


@given(st.lists(st.tuples(st.text("ACGT", min_size=1, max_size=5), BASES, BASES), max_size=4), BASES, st.randoms())
def test_several_variants_replace_only_their_alleles(blocks, end, random):
    """The oracle is joined from blocks: unchanged bases, then an allele."""
    sequence = "".join(unchanged + reference for unchanged, reference, _ in blocks) + end
    expected = "".join(unchanged + alternative for unchanged, _, alternative in blocks) + end
    variants, start = [], 0
    for unchanged, reference, alternative in blocks:
        start += len(unchanged)
        variants.append(Variant(start, reference, alternative))
        start += len(reference)
    random.shuffle(variants)
    assert apply_variants(sequence, variants) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("3", "G", "T"), "ACTTA"),
        (("3.0", "g", "T"), "ACTTA"),
        (("2", "C", "CAA"), "ACAAGTA"),
        (("3", "", "AA"), "ACAAGTA"),
        (("6", "-", "C"), "ACGTAC"),
        (("2", "CG", "C"), "ACTA"),
        (("2", "CG", "0"), "ATA"),
        (("1;5", "A;A", "T;"), "TCGT"),
        (("3", "G", "G"), "ACGTA"),
        (("1", "ACGTA", "T"), "T"),
    ],
)
@pytest.mark.parametrize("first", [0, 1])
def test_cells_of_a_row(cells, expected, first):
    positions, *alleles = cells
    shifted = ";".join(str(int(float(position)) - 1 + first) for position in positions.split(";"))
    assert apply_variants("ACGTA", parse_variants(shifted, *alleles, first), first) == expected


@pytest.mark.parametrize(
    ("cells", "reason", "place"),
    [
        (("x", "A", "C"), NO_POSITION, "'x'"),
        (("1.5", "A", "C"), NO_POSITION, "'1.5'"),
        (("", "A", "C"), NO_POSITION, "''"),
        (("0", "A", "C"), OUT_OF_RANGE, "0 of 5 bases"),
        (("-1", "A", "C"), OUT_OF_RANGE, "-1 of 5 bases"),
        (("6", "A", "C"), OUT_OF_RANGE, "6 of 5 bases"),
        (("7", "", "C"), OUT_OF_RANGE, "7 of 5 bases"),
        (("2", "A", "C"), MISMATCH, "'C' at 2, not 'A'"),
        (("5", "AC", "A"), MISMATCH, "'A' at 5, not 'AC'"),
        (("1", "A", "NA"), NO_ALLELE, ""),
        (("1", "", "0"), NO_ALLELE, ""),
        (("1", "A", "C,G"), SEVERAL_ALLELES, "'C,G'"),
        (("1;2", "A", "C"), UNEQUAL_LISTS, ""),
        (("1;2", "ACG;C", "T;T"), OVERLAP, "at 2"),
    ],
)
def test_invalid_rows_have_a_reason_and_a_place(cells, reason, place):
    with pytest.raises(VariantError) as error:
        apply_variants("ACGTA", parse_variants(*cells, 1))
    assert (error.value.reason, error.value.place) == (reason, place)
