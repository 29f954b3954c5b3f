"""Detected columns: the right one or an error that lists the candidates, never silently another one."""

import datetime
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import find_input
from pipeline.dataset.input.repairs import suggest_repairs
from pipeline.errors import UserError
from tests.pipeline.dataset.toy_dataset import L, R, toy_config, write

BASES = random.Random(17)
ROWS = range(24)


def dna(length=60):
    return "".join(BASES.choice("ACGT") for _ in range(length))


SEQUENCES = [dna() for _ in ROWS]
LABELS = [round(BASES.uniform(-2, 2), 3) for _ in ROWS]


def table(header, *columns):
    lines = [header.replace(",", "\t"), *("\t".join(map(str, cells)) for cells in zip(*columns, strict=True))]
    return "\n".join(line for line in lines if line) + "\n"


NAMES = [f"e{row}" for row in ROWS]
START, END = [1000 * row for row in ROWS], [1000 * row + 60 for row in ROWS]
COUNTS = [BASES.randint(0, 50) for _ in ROWS]


@pytest.mark.parametrize(
    ("header", "columns", "label"),
    [
        ("name,seq,log2FC", (NAMES, SEQUENCES, LABELS), "log2FC"),
        ("Seq,Mean_Fold", (SEQUENCES, LABELS), "Mean_Fold"),
        ("seq,score", (SEQUENCES, LABELS), "score"),
        (",seq,label", (ROWS, SEQUENCES, LABELS), "label"),
        ("chrom,start,end,seq,log2FC", (NAMES, START, END, SEQUENCES, LABELS), "log2FC"),
        ("seq,dna_count,log2FC", (SEQUENCES, COUNTS, LABELS), "log2FC"),
        ("sequence,expression,score,expression_sd", (SEQUENCES, LABELS, COUNTS, COUNTS), "expression"),
        ("", (SEQUENCES, LABELS), "2"),
        ("", (NAMES, SEQUENCES, LABELS), "3"),
        ("", (ROWS, SEQUENCES, LABELS), "3"),
    ],
)
@pytest.mark.parametrize("parquet", [False, True])
def test_single_candidate_is_read_with_its_own_name(tmp_path, header, columns, label, parquet):
    if parquet and header:
        file = str(tmp_path / "a.parquet")
        names = header.split(",")
        pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), file)
    else:
        file = write(tmp_path / "a.tsv", table(header, *columns))
    assert find_input([file]).column_names[1] == label


@pytest.mark.parametrize(
    ("header", "columns", "listed"),
    [
        (  # a BED file with a label behind it
            "chrom,start,end,name,score,strand,sequence,log2FC",
            (NAMES, START, END, NAMES, [row % 10 for row in ROWS], "+" * 24, SEQUENCES, LABELS),
            r"'score' \(24 numbers, 0 … 9\), 'log2FC' \(24 numbers, -.* … .*\); .* --expression-column log2FC,",
        ),
        ("chrom,set,sequence,dev,hk", (NAMES, NAMES, SEQUENCES, LABELS, LABELS), "'dev' .*'hk' "),
        ("name,seq,log2FC,se", (NAMES, SEQUENCES, LABELS, [0.1] * 24), "'log2FC' .*'se' "),
        ("seq,label,log2FC", (SEQUENCES, COUNTS, LABELS), "'label' .*'log2FC' "),
        ("seq,expression,activity", (SEQUENCES, LABELS, LABELS), "'expression' .*'activity' "),
        ("seq,expression,log2FC", (SEQUENCES, [""] * 24, LABELS), r"'expression' \(no numbers\), 'log2FC' "),
        ("name,sequence,chr,start,end", (NAMES, SEQUENCES, NAMES, START, END), r"'start' .*'end' .*fix: --no-labels"),
        ("chrom,start,end,name,score,strand,seq", (NAMES, START, END, NAMES, COUNTS, "+" * 24, SEQUENCES), "'score' "),
        ("name,sequence,count", (NAMES, SEQUENCES, COUNTS), "'count' "),
        ("", (SEQUENCES, LABELS, LABELS), "column 2 .*column 3 "),
    ],
)
def test_several_candidates_are_ambiguous(tmp_path, header, columns, listed):
    file = write(tmp_path / "a.tsv", table(header, *columns))
    with pytest.raises(UserError, match=f"ambiguous label column: {listed}"):
        find_input([file])
    source = find_input([file], Columns(unlabelled=True))
    assert (source.labelled, source.column_names[1]) == (False, None)
    assert find_input([file], labelled=False).column_names[0] in ("sequence", "seq", "1")  # for predictions


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (",tag,sequence,pos,exp", (ROWS, NAMES, SEQUENCES, [200 + row for row in ROWS], [""] * 24)),
        (",Unnamed: 0,tag,sequence,pos,exp", (ROWS, ROWS, NAMES, SEQUENCES, COUNTS, [""] * 24)),
        ("name,sequence", (NAMES, SEQUENCES)),
        (",sequence", (ROWS, SEQUENCES)),
    ],
)
def test_tables_without_labels(tmp_path, header, columns):
    built = build_dataset([write(tmp_path / "a.tsv", table(header, *columns))], bare_config(tmp_path))
    assert (built.info.cut, built.info.promoters, built.label_column, built.label_range) == (None, 24, None, None)
    assert (built.sequence_column, built.sequence_lengths) == ("sequence", (60, 60))


def bare_config(folder):
    return toy_config(folder, "assay.left_adapter=", "assay.right_adapter=", "assay.min_expression=-20")


def test_an_unknown_column_of_sequences_suggests_the_only_one_with_dna(tmp_path):
    file = write(tmp_path / "a.tsv", table("name,seq,score", NAMES, SEQUENCES, LABELS))
    with pytest.raises(UserError, match=r"no column sequence; it has name, seq, score; fix: .*sequence_column=seq$"):
        find_input([str(file)], Columns("sequence"))


def test_inserts_that_are_all_too_long_name_the_limit_that_accepts_them(tmp_path):
    rows = "".join(f"{L}{dna(length)}{R}\t1\n" for length in range(90, 130))
    file = write(tmp_path / "a.tsv", rows)
    config = toy_config(tmp_path)
    short = config.model_copy(update={"assay": config.assay.model_copy(update={"max_insert": 80})})
    with pytest.raises(UserError, match=r"0 of 40 rows are valid.*; fix: assay\.max_insert=129, .* in place of 80$"):
        build_dataset([file], short)
    hint = suggest_repairs({"": [f"{L}{'A' * 81}{R}", f"{L}{'C' * 90}{R}", f"{L}{'G' * 80}{R}"]}, short.assay)
    assert "at most 80 bases, and the longest has 90" in hint
    assert hint.endswith("assay.max_insert=90")


def test_no_labels_ignores_number_columns(tmp_path):
    file = write(tmp_path / "a.tsv", table("sequence,start,expression", SEQUENCES, START, LABELS))
    built = build_dataset([file], bare_config(tmp_path), columns=Columns(unlabelled=True))
    assert (built.info.cut, built.info.promoters) == (None, 24)
    with open_dataset(built.dataset) as connection:
        assert connection.execute("select count(expression) from promoters").fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("header", "columns", "named"),
    [
        ("barcode,oligo,dna_1,rna_1", ([dna(15) for _ in ROWS], NAMES, COUNTS, COUNTS), "'barcode' .*15 bases"),
        (
            "variant_id,log2FC,refAllele,altAllele",
            (NAMES, LABELS, [*"TGCA" * 5, *["TTTTT"] * 4], [*"ACGT" * 6]),
            "'ref",
        ),
        ("", ([dna(12) for _ in ROWS], LABELS), "column 1 .*12 bases"),
        ("id,umi,y", (NAMES, [dna(19) for _ in ROWS], LABELS), "'umi' .*19 bases"),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_barcodes_and_alleles_are_not_taken_for_promoters(tmp_path, header, columns, named, labelled):
    file = write(tmp_path / "a.tsv", table(header, *columns))
    with pytest.raises(UserError, match=f"no column holds promoters; got {named}"):
        find_input([file], labelled=labelled)


def test_short_sequences_are_read_from_a_named_column(tmp_path):
    short = [dna(15) for _ in ROWS]
    assert find_input([write(tmp_path / "a.tsv", table("", short, LABELS))], Columns("1")).column_names == ("1", "2")
    assert find_input([write(tmp_path / "b.tsv", table("seq,y", short, LABELS))]).column_names == ("seq", "y")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns("2", "1"), r"column 2 is not DNA; got '.*'; fix: --sequence-column 1"),
        (Columns("2"), "column 2 is not DNA"),
        (Columns(expression="1"), "column 1 cannot be both"),
        (Columns("1", "1"), "column 1 cannot be both"),
    ],
)
def test_swapped_columns_are_named(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        find_input([write(tmp_path / "a.tsv", table("", SEQUENCES, LABELS))], columns)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([[1.5, 2.5]] * 24, "list<"),
        ([{"mean": 1.5}] * 24, "struct<"),
        ([True, False] * 12, "True"),
        ([datetime.date(2024, 1, 2)] * 24, "2024-01-02"),
    ],
)
@pytest.mark.parametrize("name", ["labels", "label", "expression"])
def test_labels_of_another_type_are_named(tmp_path, values, shown, name):
    pq.write_table(pa.table({"sequence": SEQUENCES, name: values}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"'{name}' holds no numbers; .*{shown}"):
        find_input([str(tmp_path / "a.parquet")])
    if shown in ("True", "2024-01-02"):
        file = write(tmp_path / "a.tsv", table(f"sequence,{name}", SEQUENCES, values))
        with pytest.raises(UserError, match=f"'{name}' holds no numbers; .*{shown}"):
            find_input([file])
    assert not find_input([str(tmp_path / "a.parquet")], Columns(unlabelled=True)).labelled


def fasta(headers):
    return "".join(f">{header}\n{sequence}\n" for header, sequence in zip(headers, SEQUENCES, strict=True))


@pytest.mark.parametrize(
    ("header", "columns", "label"),
    [
        ("A:elem{row}_chr1:0-60_:{row:03}", Columns(), None),
        ("id|{label}", Columns(), None),
        ("e{row} length=60 gc=0.5", Columns(), None),
        ("e{row} expression={label}", Columns(), "expression"),
        ("e{row}|log2FC = {label}|n=3", Columns(), "log2fc"),
        ("e{row} score=7 activity={label};x", Columns(), "activity"),
        ("e{row} gc={label}", Columns(expression="gc"), "gc"),
        ("id|{label}", Columns(expression="2"), "field 2"),
        ("id||{label}", Columns(expression="3"), "field 3"),
    ],
)
def test_labels_of_fasta_have_a_key_or_are_requested(tmp_path, header, columns, label):
    text = fasta(header.format(row=row, label=value) for row, value in zip(ROWS, LABELS, strict=True))
    built = build_dataset([write(tmp_path / "a.fa", text)], bare_config(tmp_path), columns=columns)
    assert (built.info.promoters, built.label_column) == (24, label)
    with open_dataset(built.dataset) as connection:
        rows = connection.execute("select sequence, expression from promoters").fetchall()
    expected = LABELS if label else [None] * 24
    assert dict(rows) == dict(zip(SEQUENCES, expected, strict=True))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns("sequence"), "--sequence-column sequence: FASTA has no columns"),
        (Columns(expression="mean"), "no header has the key mean; got label, value"),
        (Columns(expression="7"), "field 7 of the headers holds no number"),
        (Columns(), r"ambiguous label key: 'label' \(24 numbers, 1 … 1\), 'value' \(24"),
    ],
)
def test_fasta_refuses_column_options(tmp_path, columns, message):
    file = write(tmp_path / "a.fa", fasta(f"e{row} label=1 value={row}" for row in ROWS))
    with pytest.raises(UserError, match=message):
        find_input([file], columns)


def test_a_decimal_comma_in_a_header_is_no_label(tmp_path):
    text = fasta(f"e{row} expression={row % 10}{',5' * (row % 2)},n=3 {row % 7},25" for row in ROWS)
    built = build_dataset([write(tmp_path / "a.fa", text)], bare_config(tmp_path))
    assert (built.info.promoters, built.rejects) == (12, {"expression is not a number": 12})
    with pytest.raises(UserError, match="field 5 of the headers holds no number"):
        find_input([write(tmp_path / "b.fa", fasta(f"e{row} a b c {row % 7},25" for row in ROWS))], Columns(None, "5"))


def test_label_column_may_begin_with_missing_values(tmp_path):
    labels = [None] * 1500 + LABELS
    sequences = [dna() for _ in labels]
    pq.write_table(pa.table({"seq": sequences, "gc": [0.5] * len(labels), "y": labels}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"'gc' \(1,000 .*'y' \(no numbers\)"):
        find_input([str(tmp_path / "a.parquet")])


def test_files_with_other_labels_are_not_read_together(tmp_path):
    files = [write(tmp_path / f"{name}.tsv", table(f"seq,{name}", SEQUENCES, LABELS)) for name in ("log2FC", "mean")]
    with pytest.raises(UserError, match="expression_name: 'log2FC' and 'mean'"):
        find_input(files)


@pytest.mark.parametrize(
    ("text", "hint", "settings"),
    [
        (  # one adapter with two substitutions
            "".join(f"{L[:-2]}GG{s}{R}\t5\n" for s in SEQUENCES),
            "assay.adapter_mismatches=2",
            {"adapter_mismatches": 24},
        ),
        (
            "".join(f"{L}{s}{R[:3]}C{R[4:]}\t5\n" for s in SEQUENCES),
            "assay.adapter_mismatches=1",
            {"adapter_mismatches": 24},
        ),
        (  # overlapping k-mers
            "".join(" ".join(s[i : i + 6] for i in range(55)) + "\t5\n" for s in SEQUENCES),
            "assay.white_space=strip assay.missing_adapters=add",
            {"white_space": 24, "missing_adapters": 24},
        ),
        (  # blocks of ten bases
            "".join(" ".join(s[i : i + 10] for i in range(0, 60, 10)) + "\t5\n" for s in SEQUENCES),
            "assay.white_space=strip assay.missing_adapters=add",
            {"white_space": 24, "missing_adapters": 24},
        ),
        (  # RNA below a header line that is a row
            "utr,rl\n" + "".join(f"{s.replace('T', 'U')},5\n" for s in SEQUENCES),
            "assay.uracil=thymine assay.missing_adapters=add",
            {"uracil": 24, "missing_adapters": 24},
        ),
    ],
)
def test_hint_repairs_its_rows(tmp_path, text, hint, settings):
    file = write(tmp_path / "a.csv", text)
    with pytest.raises(
        UserError, match=rf"0 of \d+ rows are valid; 24 are .*fix: (for bare inserts .*, )?{hint}($|; for another)"
    ):
        build_dataset([file], toy_config(tmp_path))
    built = build_dataset([file], toy_config(tmp_path, *hint.split()))
    assert (built.info.promoters, built.repairs) == (24, settings)
    with open_dataset(built.dataset) as connection:
        rows = connection.execute("select sequence from promoters").fetchall()
    assert {sequence for (sequence,) in rows} == {f"{L}{sequence}{R}" for sequence in SEQUENCES}


def test_no_hint_if_no_repair_helps(tmp_path):
    """White space between a sequence and a text: stripping it would join both into one sequence."""
    file = write(tmp_path / "a.tsv", "".join(f"{L}{s}{R} plus\t1.5\n" for s in SEQUENCES))
    with pytest.raises(UserError) as raised:
        build_dataset([file], toy_config(tmp_path))
    assert "fix:" not in str(raised.value)


def test_space_between_sequence_and_label_is_a_delimiter(tmp_path):
    file = write(tmp_path / "a.txt", "".join(f"{L}{s}{R} {n / 2}\n" for n, s in enumerate(SEQUENCES)))
    built = build_dataset([file], toy_config(tmp_path))
    assert (built.info.promoters, built.label_range) == (24, (0.0, 11.5))
