"""The inputs that people tried and reported, by name: each gives its right labels, or a question or refusal.

The files written here have the form of those inputs. The real ones are read, too, from the folder `cases` beside the
one that PROMOTER_BERT_DATA names. The kinds behind the cases are in test_columns.py, test_table_heads.py and
test_zero.py; the hint of each repair is in test_columns.py.
"""

import json
import os
import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli.messages import describe_build
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.dataset.input.columns import Columns
from pipeline.errors import UserError
from tests.conftest import small_config
from tests.pipeline.dataset.toy_dataset import L, R

BASES = random.Random(42)
ROWS = range(24)
BARE = ("assay.left_adapter=", "assay.right_adapter=", "assay.flank=0", "assay.min_expression=-20")


def dna(length=60):
    return "".join(BASES.choice("ACGT") for _ in range(length))


def numbers(low, high):
    return [round(BASES.uniform(low, high), 3) for _ in ROWS]


SEQUENCES = [dna() for _ in ROWS]
LABELS, OTHERS = numbers(-2, 2), numbers(8, 12)
YEAST = [f"{L[:-2]}GG{s}{R}" if row % 4 == 0 else f"{L}{s}{R}" for row, s in enumerate(SEQUENCES)]
CHROM = [f"chr{row % 5 + 1}\t{row}000\t{row}060" for row in ROWS]


def lines(header, *columns):
    rows = ["\t".join(map(str, cells)) for cells in zip(*columns, strict=True)]
    return "".join(f"{row}\n" for row in [*header, *rows])


def kmers(sequence):
    return " ".join(sequence[i : i + 3] for i in range(len(sequence) - 2))


TEXTS = {
    "01-deepstarr-two-labels__min.tsv": lines(
        ["chrom\tset\tsequence\tdev\thk"], "12" * 12, "ab" * 12, SEQUENCES, LABELS, OTHERS
    ),
    "12-mpra-design-fasta__min.fa": "".join(
        f">A:elem{row}_chr1:{row}000-{row}060_:{row:03}\n{s}\n" for row, s in enumerate(SEQUENCES)
    ),
    "13-mpra-barcodes__min.tsv": lines(
        ["barcode\toligo\tdna_1\trna_1"], [s[:15] for s in SEQUENCES], [f"elem{row}" for row in ROWS], ROWS, ROWS
    ),
    "17-dream-subset-csv__min.csv": ",tag,sequence,pos,exp\n"
    + "".join(f"{row},t{row},{L}{s}{R},{200 + row},\n" for row, s in enumerate(SEQUENCES)),
    "22-vaishnav-bare-inserts__min.tsv": lines([], YEAST, OTHERS),
    "23-wtc11-strand-pairs__min.tsv": lines([], SEQUENCES, LABELS),
    "30-r-row-names__min_silent.txt": lines(["oligo\tdna\texpression"], range(1, 25), SEQUENCES, OTHERS, LABELS),
    "31-kmer-text__min.tsv": lines(["sequence\tlabel"], [kmers(s[:30]) for s in SEQUENCES], [0, 1] * 12),
    "34-comment-lines__min_preamble.tsv": lines(
        ["# activity table", "# version 2", "name\tseq\tlog2FC\tse"], ROWS, SEQUENCES, LABELS, [0.1] * 24
    ),
    "37-ds-config__offload.json": json.dumps({"train_micro_batch_size_per_gpu": 64}),
    "38-constant-labels__const.tsv": lines([], SEQUENCES, [1.0] * 24),
    "43-igvf-design__min.tsv": lines(["name\tsequence\tchr\tstart\tend"], ROWS, SEQUENCES, CHROM),
    "44-igvf-variants__min.tsv": lines(
        ["variant_id\tlog2FC\trefAllele\taltAllele"],
        [f"x:{row}" for row in ROWS],
        LABELS,
        [*["TTTTT", *"TGCA"] * 4, *"TGCA"],
        "ACGT" * 6,
    ),
    "45-rna__min.csv": "utr,rl\n"
    + "".join(f"{s[:50].replace('T', 'U')},{label}\n" for s, label in zip(SEQUENCES, OTHERS, strict=True)),
    "52-score-trap__min_bed.tsv": lines(
        ["chrom\tstart\tend\tname\tscore\tstrand\tsequence\tlog2FC"],
        CHROM,
        ROWS,
        [row % 10 for row in ROWS],
        "+" * 24,
        SEQUENCES,
        LABELS,
    ),
    "53-tiles__min.tsv": lines([], [(SEQUENCES[0] + SEQUENCES[1])[row : row + 60] for row in ROWS], LABELS),
}
LISTS = "35-hf-dataset-dir__min_list.parquet"

REFUSALS = [
    ("01-deepstarr-two-labels__min.tsv", r"'dev' \(\d+ numbers, .*'hk' \(.*fix: name it, such as --.* dev, or --no"),
    ("13-mpra-barcodes__min.tsv", r"no column holds promoters; got 'barcode' \(most of 15 bases\)"),
    ("34-comment-lines__min_preamble.tsv", r"'log2FC' \(.*'se' \(\d+ numbers, 0.1 … 0.1\); .* --.* log2FC,"),
    (LISTS, r"'labels' holds no numbers; .*list<"),
    ("37-ds-config__offload.json", "expected a name ending in .tsv,"),
    ("43-igvf-design__min.tsv", r"ambiguous label column: 'start' \(.*'end' \(.*; fix: --no-labels"),
    ("44-igvf-variants__min.tsv", r"no column holds promoters; got 'refAllele' \(most of 1 base\), 'altAllele'"),
    ("52-score-trap__min_bed.tsv", r"'score' \(\d+ numbers, 0 … 9\), 'log2FC' \(.*fix: .* --.* log2FC,"),
]
"""Name of the case, message."""

BUILDS = [
    ("01-deepstarr-two-labels__min.tsv", Columns(expression="hk"), BARE, "labels: 'hk' ("),
    ("12-mpra-design-fasta__min.fa", None, BARE, "labels: none"),
    ("17-dream-subset-csv__min.csv", None, (), "labels: none"),
    ("22-vaishnav-bare-inserts__min.tsv", None, ("assay.adapter_mismatches=2",), "labels: column 2 ("),
    ("23-wtc11-strand-pairs__min.tsv", None, BARE, "labels: column 2 (-"),
    ("30-r-row-names__min_silent.txt", None, BARE, "labels: 'expression' (-"),
    ("31-kmer-text__min.tsv", None, (*BARE, "assay.white_space=strip"), "sequences: 'sequence' (30 bases)"),
    ("34-comment-lines__min_preamble.tsv", Columns(expression="log2FC"), BARE, "skipped    2 comment lines"),
    ("38-constant-labels__const.tsv", None, BARE, "warning    all labels are 1:"),
    ("43-igvf-design__min.tsv", Columns(unlabelled=True), BARE, "labels: none"),
    ("45-rna__min.csv", None, (*BARE, "assay.uracil=thymine"), "sequences: column 1 (50 bases)"),
    ("52-score-trap__min_bed.tsv", Columns(expression="log2FC"), BARE, "labels: 'log2FC' (-"),
    ("53-tiles__min.tsv", None, BARE, "labels: column 2 (-"),
]
"""Name of the case, options, settings, the beginning of a printed line. All rows are promoters, but a header line."""

FIELDS = {
    "01-deepstarr-two-labels__min.tsv": (3, 5),
    "30-r-row-names__min_silent.txt": (2, 4),
    "34-comment-lines__min_preamble.tsv": (2, 3),
    "52-score-trap__min_bed.tsv": (7, 8),
}
"""Columns of sequence and label, from 1, where they are not the first two."""


@pytest.fixture(params=["written", "real"])
def file_of(request, tmp_path):
    """Return the function that gives the path of a case: written here, or the real one."""
    if request.param == "real":
        folder = Path(os.environ.get("PROMOTER_BERT_DATA", "/nowhere")).parent / "cases"
        if not folder.is_dir():
            pytest.skip("no folder cases beside the one that PROMOTER_BERT_DATA names")
        return lambda name: folder / name

    def write(name):
        file = tmp_path / name
        if name == LISTS:
            pq.write_table(pa.table({"sequence": SEQUENCES, "labels": [[1.5, 2.5]] * 24}), file)
        else:
            file.write_text(TEXTS[name])
        return file

    return write


def expected_rows(file):
    """Read sequences and labels apart from the product: the last two columns, or those of FIELDS."""
    text = file.read_text().splitlines()
    if file.suffix == ".fa":
        return {(line, None) for line in text if not line.startswith(">")}
    sequence, label = FIELDS.get(file.name, (3, 5) if file.name.startswith("17") else (1, 2))
    rows = [re.split(r"[\t,]", line) for line in text if not line.startswith("#")]
    if file.name.startswith("43"):
        return {(row[1], None) for row in rows[1:]}
    found = {(row[sequence - 1], row[label - 1]) for row in rows if row[sequence - 1].isupper()}
    return {(sequence, float(label) if label else None) for sequence, label in found}


def reference(file, sequence):
    """Repair a sequence by hand."""
    if file.name.startswith("22"):
        return f"{L}{sequence[len(L) :]}"
    if file.name.startswith("31"):
        words = sequence.split()
        return words[0] + "".join(word[-1] for word in words[1:])
    return sequence.replace("U", "T")


@pytest.mark.parametrize(("name", "columns", "settings", "printed"), BUILDS, ids=[name for name, *_ in BUILDS])
def test_a_case_gives_its_rows(tmp_path, file_of, name, columns, settings, printed):
    file = file_of(name)
    config = small_config(tmp_path, "dataset.pretrain_valid=1", *settings)
    built = build_dataset([str(file)], config, columns=columns)
    with open_dataset(built.dataset) as connection:
        rows = connection.execute("select sequence, expression from promoters").fetchall()
    assert set(rows) == {(reference(file, sequence), label) for sequence, label in expected_rows(file)}
    assert sum(built.rejects.values()) == name.startswith("45")  # its header line has no known name
    assert len(rows) == built.info.input_rows - sum(built.rejects.values())
    assert any(line.startswith(printed) for line in describe_build(built))


@pytest.mark.parametrize(("name", "message"), REFUSALS, ids=[name for name, _ in REFUSALS])
def test_a_case_is_refused(tmp_path, file_of, name, message):
    with pytest.raises(UserError, match=message):
        build_dataset([str(file_of(name))], small_config(tmp_path, *BARE))
    assert not (tmp_path / "dataset.duckdb").exists()


@pytest.mark.parametrize("name", ["12-mpra-design-fasta__min.fa", "23-wtc11-strand-pairs__min.tsv", "45-rna__min.csv"])
@pytest.mark.parametrize("assay", ["bare inserts of this assay", "another assay"])
def test_rows_without_adapters_have_two_fixes(tmp_path, file_of, name, assay):
    """Only the user knows whether they are bare inserts. The settings of both fixes are tried here."""
    file = file_of(name)
    with pytest.raises(UserError) as raised:
        build_dataset([str(file)], small_config(tmp_path))
    fixes = dict(re.findall(r"for ([\w ]+), ([^;]*)", str(raised.value).partition("; fix: ")[2]))
    assert list(fixes) == ["bare inserts of this assay", "another assay"]
    built = build_dataset([str(file)], small_config(tmp_path, "dataset.pretrain_valid=1", *fixes[assay].split()))
    adapters = len(L + R) if assay == "bare inserts of this assay" else 0
    assert sum(built.rejects.values()) == name.startswith("45")
    lengths = {len(reference(file, sequence)) + adapters for sequence, _ in expected_rows(file)}
    assert built.sequence_lengths == (min(lengths), max(lengths))


def test_assays_of_other_files_as_they_are(tmp_path):
    """The samples of other assays: what build says without options, and the rows after it."""
    folder = Path(os.environ.get("PROMOTER_BERT_DATA", "/nowhere")) / "assays"
    if not folder.is_dir():
        pytest.skip("no folder assays in the one that PROMOTER_BERT_DATA names")
    label = {"drosophila": "Dev_log2_enrichment", "human": "mean_value"}
    for file in sorted(folder.iterdir()):
        columns = Columns(expression=label.get(file.name.partition("_")[0]))
        if columns.expression:
            with pytest.raises(UserError, match=f"ambiguous label column: '{columns.expression}' "):
                build_dataset([str(file)], small_config(tmp_path))
        with pytest.raises(UserError, match="; for another assay, ") as raised:
            build_dataset([str(file)], small_config(tmp_path), columns=columns)
        settings = str(raised.value).partition("for another assay, ")[2].split()
        built = build_dataset([str(file)], small_config(tmp_path, *settings), columns=columns, replace=True)
        assert (built.info.promoters, built.rejects) == (len(file.read_text().splitlines()) - 1, {})
