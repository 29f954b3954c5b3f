"""Predictions that keep the columns of the input (--keep-columns)."""

import csv
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.prediction.files import predict_files
from model.prediction.inputs import find_prediction_input, read_parts
from model.prediction.request import PredictionRequest
from tests.conftest import small_config
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
ASSAY = small_config(Path()).assay
HEADER = ["chrom", "Sequence", "Prediction", "note", "fold"]
SEQUENCES = [f"{L}{'ACGT' * (n + 1)}{R}" if n != 3 else "acgtacgtacgtacgtacgtac" for n in range(6)]
ROWS = [[f"chr{n}", s, f"{n}.50", "a b" if n % 2 else "", f"0{n}"] for n, s in enumerate(SEQUENCES)]


def predictions(tmp_path, output, **values):
    model = save_model(tmp_path / "model", ASSAY)
    request = PredictionRequest(model, output=str(tmp_path / output), workers=1, **values)
    predict_files(request)
    return tmp_path / output


@pytest.mark.parametrize("form", ["tsv", "csv"])
def test_columns_of_text_are_written_unchanged_and_in_order(tmp_path, form):
    delimiter = {"tsv": "\t", "csv": ","}[form]
    (tmp_path / f"rows.{form}").write_text("".join(delimiter.join(row) + "\n" for row in [HEADER, *ROWS]))
    rows = [str(tmp_path / f"rows.{form}")]
    plain = predictions(tmp_path, "plain.csv", inputs=rows).read_text().splitlines()[1:]
    kept = predictions(tmp_path, f"kept.{form}", inputs=rows, keep_columns=True).read_text()
    heads, *lines = csv.reader(io.StringIO(kept), delimiter=delimiter)
    assert heads == ["chrom", "Sequence", "Prediction_input", "note", "fold", "prediction"]
    assert [line[:-1] for line in lines] == ROWS
    assert [line[-1] for line in lines] == [line.split(",")[-1] for line in plain]
    assert lines[3][-1] == "nan"


def test_types_of_parquet_are_kept(tmp_path):
    table = pa.table(
        {"fold": pa.array(range(6), pa.int8()), "seq": SEQUENCES, "tags": [["a"], None, [], ["b"], [], []]}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    kept = pq.read_table(predictions(tmp_path, "o.parquet", inputs=[str(tmp_path / "rows.parquet")], keep_columns=True))
    assert kept.select(["fold", "seq", "tags"]).equals(table)
    assert kept.column_names == ["fold", "seq", "tags", "prediction", "problem"]
    assert kept["prediction"].null_count == 1


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_clear_label_is_kept_too(tmp_path, suffix):
    rows = [{"activity": n, "seq": sequence} for n, sequence in enumerate(SEQUENCES)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = [str(tmp_path / f"rows.{suffix}")]
    kept = pq.read_table(predictions(tmp_path, "o.parquet", inputs=inputs, keep_columns=True))
    assert kept["seq"].to_pylist() == SEQUENCES
    assert kept["activity"].to_pylist() == [
        row["activity"] if suffix == "parquet" else str(row["activity"]) for row in rows
    ]


@pytest.mark.parametrize("piped", [False, True])
def test_names_of_fasta(tmp_path, monkeypatch, piped):
    text = "".join(f">e{n} more\n{sequence}\n" for n, sequence in enumerate(SEQUENCES))
    (tmp_path / "rows.fa").write_text(text)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    names = ["-"] if piped else [str(tmp_path / "rows.fa")]
    parts = list(read_parts(find_prediction_input(names, None, keep_columns=True), ASSAY, 4))
    assert [row for part in parts for row in part.cells.to_pylist()] == [
        {"name": f"e{n}", "sequence": sequence} for n, sequence in enumerate(SEQUENCES)
    ]
