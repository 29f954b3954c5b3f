"""The columns of tables of variants are found by their names, and sequences are told from alleles."""

from pathlib import Path

import pytest

from model.prediction.variants.columns import VariantColumns, choose_variant_columns
from pipeline.dataset.input.files import read_head
from pipeline.errors import UserError

S = "ACGTTGCATTGCAGGTCATTGCAC"


def choose(tmp_path: Path, header: str, row: str, **options):
    (tmp_path / "rows.csv").write_text(f"{header}\n{row}\n{row}\n")
    layout = choose_variant_columns(read_head([str(tmp_path / "rows.csv")]), VariantColumns(**options))
    return layout.reference, layout.alternative, layout.sequence, layout.position, layout.first_position


@pytest.mark.parametrize(
    ("header", "row", "options", "expected"),
    [
        ("ref_sequence,alt_sequence", f"{S},{S}", {}, (1, 2, 0, 0, 1)),
        ("id,alt,ref", f"1,{S},{S}", {}, (3, 2, 0, 0, 1)),
        ("sequence_ref,sequence_alt,ref,alt,pos", f"{S},{S},A,C,1", {}, (1, 2, 0, 0, 1)),
        ("ref_seq,ref,alt,pos", f"{S},A,C,1", {}, (2, 3, 1, 4, 1)),
        ("chrom,pos,ref,alt,sequence", f"chr1,1,A,C,{S}", {}, (3, 4, 5, 2, 1)),
        ("variant_id,variantPos,refAllele,altAllele,element", f"x:1:A:C,0,A,C,{S}", {}, (3, 4, 5, 2, 0)),
        ("refseq,pos,ref,alt,oligo", f"NM_1,1,A,,{S}", {}, (3, 4, 5, 2, 1)),
        ("a,b,c,d", f"{S},2,A,C", {"reference": "c", "alternative": "4", "position": "b"}, (3, 4, 1, 2, 1)),
        ("wt,mut", f"{S},{S}", {"reference": "mut", "alternative": "wt"}, (2, 1, 0, 0, 1)),
        (f"{S},{S}", f"{S},{S}", {"reference": "1", "alternative": "2"}, (1, 2, 0, 0, 1)),
        ("pos,ref,alt,seq", f"1,A,C,{S}", {"first_position": 0}, (2, 3, 4, 1, 0)),
    ],
)
def test_columns_are_found(tmp_path, header, row, options, expected):
    assert choose(tmp_path, header, row, **options) == expected


@pytest.mark.parametrize(
    ("header", "row", "options", "message"),
    [
        ("id,sequence", f"1,{S}", {}, "no column of reference sequences or alleles; got id, sequence; fix: --ref-col"),
        ("ref,ref_allele,alt,pos,seq", f"A,A,C,1,{S}", {}, "ambiguous reference column; got 'ref', 'ref_allele'"),
        ("ref,alt,sequence", f"A,C,{S}", {}, "one column of positions in the sequence, got none"),
        ("ref,alt,one,two,pos", f"A,C,{S},{S},1", {}, "ambiguous columns of sequences 'one', 'two'"),
        ("ref,alt", f"{S},{S}", {"alternative": "ref"}, "cannot be both"),
        ("ref,alt", f"{S},{S}", {"effects": ("x",)}, "no column x; it has ref, alt"),
    ],
)
def test_doubtful_tables_raise(tmp_path, header, row, options, message):
    with pytest.raises(UserError, match=message):
        choose(tmp_path, header, row, **options)


def test_alleles_without_sequences_raise(tmp_path):
    """The form of IGVF tables of measured variants, which hold no sequences."""
    (tmp_path / "rows.tsv").write_text("variant_id\tlog2FC\trefAllele\taltAllele\nx:1\t-0.4\tTTTTT\tT\nx:2\t1\tA\tC\n")
    with pytest.raises(UserError, match="'refAllele' and 'altAllele' hold alleles, and no column holds the sequences"):
        choose_variant_columns(read_head([str(tmp_path / "rows.tsv")]), VariantColumns())
