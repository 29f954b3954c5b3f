"""Doubtful input files: truncated, joined, or with columns that can be read in two ways."""

import gzip
import json
import lzma
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import find_input
from pipeline.dataset.input.format import layout_of_text
from pipeline.errors import UserError
from tests.pipeline.dataset.input.reading import read_rows, valid_rows

ROWS = [("ACGTACGTACGTACGTACGTACGT"[i:] + "ACGT" * 5, i + 0.5) for i in range(12)]
SEQUENCES, LABELS = [s for s, _ in ROWS], [label for _, label in ROWS]
BARCODES = [f"ACGTACGTAC{a}{b}" for a in "ACG" for b in "ACGT"]
COUNTS = [5, 3, 8, 1, 9, 2, 7, 4, 6, 11, 12, 10]
DATA = lzma.compress("".join(f"{s}\t{label}\n" for s, label in ROWS).encode())


def table(**columns):
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return "".join(f"{line}\n" for line in lines)


def written(path, text):
    path.write_text(text)
    return [path]


@pytest.mark.parametrize(
    "streams", [[DATA, b"\0\0\0\0", DATA], [DATA, DATA, b"\0" * 8], [lzma.compress(b""), DATA, DATA]]
)
def test_all_streams_of_an_xz_file(tmp_path, streams):
    (tmp_path / "a.tsv.xz").write_bytes(b"".join(streams))
    assert valid_rows([tmp_path / "a.tsv.xz"]) == ROWS * 2


@pytest.mark.parametrize("end", [DATA[:-5], DATA[:5], b"garbage", b"\0\0\0\0" + DATA[1:]])
def test_xz_file_that_is_corrupt_after_its_first_stream(tmp_path, end):
    (tmp_path / "a.tsv.xz").write_bytes(DATA + end)
    with pytest.raises(UserError, match=r"a.tsv.xz: cannot be read, corrupt or truncated"):
        read_rows([tmp_path / "a.tsv.xz"])


@pytest.mark.parametrize("first", [0, 1])
def test_arrow_file_whose_first_batch_is_short(tmp_path, first):
    rows = pa.table({"barcode": BARCODES, "dna": SEQUENCES, "log2fc": LABELS})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), rows.schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows.slice(0, first).to_pylist(), rows.schema))
        writer.write_table(rows.slice(first))
    assert valid_rows([tmp_path / "a.arrow"]) == ROWS


def test_arrow_stream_of_a_killed_writer(tmp_path):
    rows = pa.table({"sequence": SEQUENCES, "expression": LABELS})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), rows.schema) as writer:
        writer.write_table(rows)
    assert valid_rows([tmp_path / "a.arrow"]) == ROWS
    (tmp_path / "a.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-8])
    with pytest.raises(UserError, match="end mark"):
        read_rows([tmp_path / "a.arrow"])


@pytest.mark.parametrize(
    ("names", "columns"), [(["sequence", ""], Columns(expression="2")), (["", "expression"], None), ([], None)]
)
def test_parquet_file_with_a_column_without_a_name(tmp_path, names, columns):
    values = [SEQUENCES, LABELS][: len(names)]
    pq.write_table(pa.table(values, names=names), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has no"):
        find_input([str(tmp_path / "a.parquet")], columns)


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, '"\\ud800"', '{"\\udfff": 1}'])
def test_json_values_that_cannot_be_read(tmp_path, value):
    lines = [json.dumps({"sequence": s, "expression": label}) for s, label in ROWS]
    lines.append(f'{{"sequence": "{SEQUENCES[0]}", "expression": 1, "note": {value}}}')
    with pytest.raises(UserError, match=r"a.jsonl:13: not JSON"):
        read_rows(written(tmp_path / "a.jsonl", "".join(f"{line}\n" for line in lines)))


@pytest.mark.parametrize(
    "columns", [{"sequence": BARCODES, "oligo": SEQUENCES}, {"promoter": ["TATA"] * 12, "x": SEQUENCES}]
)
def test_short_sequences_under_a_known_name_beside_promoters(tmp_path, columns):
    paths = written(tmp_path / "a.tsv", table(**columns, expression=LABELS))
    with pytest.raises(UserError, match=r"ambiguous columns 1 .* 2 "):
        read_rows(paths)
    assert valid_rows(paths, Columns(sequence="2")) == ROWS


@pytest.mark.parametrize(
    "columns",
    [
        {"exp": COUNTS, "log2FC": LABELS},
        {"log2FC": ["NA"] * 10 + LABELS[10:], "quality": COUNTS},
        {"log2FC": [""] * 11 + LABELS[11:], "quality": COUNTS},
    ],
)
def test_labels_beside_another_column_of_numbers(tmp_path, columns):
    with pytest.raises(UserError, match="ambiguous label column"):
        read_rows(written(tmp_path / "a.tsv", table(seq=SEQUENCES, **columns)))


def test_exp_beside_a_count_is_the_label(tmp_path):
    assert valid_rows(written(tmp_path / "a.tsv", table(seq=SEQUENCES, exp=LABELS, count=COUNTS))) == ROWS


@pytest.mark.parametrize(
    "header", ["expression=4 expression=5", "expression=4|expression=5", "EXPRESSION=5;expression=4"]
)
def test_header_with_two_values_for_one_key(tmp_path, header):
    entries = "".join(f">p expression={label}\n{s}\n" for s, label in ROWS)
    paths = written(tmp_path / "a.fa", f"{entries}>x {header}\n{SEQUENCES[0]}\n>y my-expression=9 expression=4\nACGT\n")
    assert valid_rows(paths) == [*ROWS, ("ACGT", 4.0)]


def test_standard_input_that_begins_with_a_comment_of_fasta():
    assert layout_of_text("-", f";made by x\n>p\n{SEQUENCES[0]}\n".encode()).kind == "fasta"


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.parquet"])
def test_folder_named_like_the_home_is_not_the_home(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder, label in (("~", 1.0), ("home", 99.0)):
        (tmp_path / folder).mkdir()
        if name == "a.parquet":
            pq.write_table(pa.table({"sequence": [SEQUENCES[0]], "expression": [label]}), tmp_path / folder / name)
        else:
            text = f"{SEQUENCES[0]}\t{label}\n".encode()
            (tmp_path / folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert valid_rows([f"~/{name}"]) == [(SEQUENCES[0], 1.0)]


@pytest.mark.parametrize("name", ["s3:a.parquet", "file:a.parquet"])
def test_file_named_like_a_url(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"sequence": SEQUENCES, "expression": LABELS}), tmp_path / name)
    assert valid_rows([name]) == ROWS


def test_hard_link_to_a_named_file(tmp_path):
    (path,) = written(tmp_path / "a.tsv", table(sequence=SEQUENCES, expression=LABELS))
    (tmp_path / "b.tsv").hardlink_to(path)
    with pytest.raises(UserError, match="duplicate file"):
        find_input([str(path), str(tmp_path / "b.tsv")])


def test_file_name_that_is_not_utf8(tmp_path):
    path = str(tmp_path / os.fsdecode(b"a\xff.tsv"))
    with pytest.raises(UserError, match="not UTF-8"):
        find_input([path])


def test_json_key_that_first_appears_after_the_first_lines_is_a_column(tmp_path):
    rows = [{"sequence": SEQUENCES[i % 12], "depth": i / 7} for i in range(1200)]
    rows += [{"sequence": s, "depth": 1.5, "expression": label} for s, label in ROWS]
    file = written(tmp_path / "a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    assert valid_rows(file) == ROWS
