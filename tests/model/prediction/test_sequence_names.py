"""Names of promoters in the output, from FASTA headers or a column of a table."""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.prediction.files import predict_files
from model.prediction.inputs import Part, find_prediction_input, read_parts
from model.prediction.predictor import BATCH
from model.prediction.request import PredictionRequest, check_request
from model.prediction.writers import WRITERS, as_text
from pipeline.dataset.input.columns import Columns
from pipeline.errors import UserError
from tests.conftest import small_config
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
ASSAY = small_config(Path()).assay
NAMES = ["YAL001C", "p,2", "", "YAL001C", "äö", "7"]
SEQUENCES = [f"{L}ACGT{'A' * n}{R}" if n != 3 else "acgt" for n in range(len(NAMES))]
PAIRS = list(zip(NAMES, SEQUENCES, strict=True))
FORMS = {
    "fasta": "".join(
        f">{name}{name and ' other words 1.5'}\n{sequence[:20]}\n{sequence[20:]}\n" for name, sequence in PAIRS
    ),
    "tsv": "".join(f"{sequence}\t1.5\t {name}\n" for name, sequence in PAIRS),
    "csv": "id,strength,sequence\n" + "".join(f'"{name}",1.5,{sequence}\n' for name, sequence in PAIRS),
}


@pytest.mark.parametrize(
    ("form", "column", "piped"),
    [("fasta", None, False), ("fasta", None, True), ("tsv", "3", False), ("csv", "ID", False), ("csv", "1", True)],
)
def test_names_are_read_with_their_sequences(tmp_path, monkeypatch, form, column, piped):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FORMS[form].encode())))
    (tmp_path / f"rows.{form}").write_text(FORMS[form])
    names = ["-"] if piped else [str(tmp_path / f"rows.{form}")]
    parts = list(read_parts(find_prediction_input(names, Columns(name=column), column is None), ASSAY, 4))
    assert [len(part) for part in parts] == [4, 2]
    rows = [row for part in parts for row in part.table.to_pylist()]
    assert [(row["name"], row["sequence"]) for row in rows] == PAIRS


def test_names_of_parquet_files(tmp_path):
    for number in (0, 1):
        table = {"id": [None, 10 * number], "sequence": SEQUENCES[:2], "of": ["a", None]}
        pq.write_table(pa.table(table), tmp_path / f"{number}.parquet")
    for column, expected in (("id", ["", "0", "", "10"]), ("3", ["a", "", "a", ""])):
        (part,) = read_parts(find_prediction_input([str(tmp_path / "*.parquet")], Columns(name=column)), ASSAY, 9)
        assert part.table["name"].to_pylist() == expected


@pytest.mark.parametrize(
    ("form", "column", "headers", "message"),
    [
        ("fasta", "id", False, "--name-column id: FASTA has no columns.*--names"),
        ("tsv", None, True, "got a table; fix: --name-column"),
        ("tsv", "4", False, "no column 4; it has 3"),
        ("csv", "name", False, "no column name; it has"),
    ],
)
def test_missing_names_raise(tmp_path, form, column, headers, message):
    (tmp_path / f"rows.{form}").write_text(FORMS[form])
    with pytest.raises(UserError, match=message):
        find_prediction_input([str(tmp_path / f"rows.{form}")], Columns(name=column), headers)


def test_leaderboard_with_names_raises(tmp_path):
    model = save_model(tmp_path / "model", ASSAY)
    (tmp_path / "sample.json").write_text('{"0": 0}')
    for names in ({"header_names": True}, {"columns": Columns(name="id")}):
        with pytest.raises(UserError, match="omit --names and --name-column"):
            check_request(
                PredictionRequest(model, [], str(tmp_path / "out.json"), leaderboard=tmp_path / "sample.json", **names)
            )


@pytest.mark.parametrize("named", [False, True])
def test_all_output_formats_hold_the_same_rows(tmp_path, named):
    """Names and sequences with separators and quotes of the format included."""
    texts = ["a\tb", 'say "x", y', "", "two\nlines"]
    values = np.array([1.25, np.nan, -1e-7, 3], np.float32)

    def parts():
        for rows in (slice(0, 3), slice(3, 4)):
            problem = pa.array(["bad" if np.isnan(value) else None for value in values[rows]], pa.string())
            columns = {"sequence": texts[rows], "prediction": pa.array(values[rows], from_pandas=True)}
            names = {"name": texts[rows]} if named else {}
            yield Part(rows.start, pa.table({**names, **columns, "problem": problem}))

    written = {}
    for ending in ("tsv", "csv", "parquet"):
        file = io.BytesIO()
        WRITERS[f".{ending}"](file, parts())
        written[ending] = file.getvalue()
    heads, *lines = csv.reader(io.StringIO(written["csv"].decode(), newline=""))
    assert heads == ["name", "sequence", "prediction"][not named :]
    assert lines == [
        [*[text] * (1 + named), as_text(value)] for text, value in zip(texts, values.tolist(), strict=True)
    ]
    table = pq.read_table(io.BytesIO(written["parquet"]))
    assert table.column_names == [*heads, "problem"]
    assert [table[name].to_pylist() for name in heads[:-1]] == [texts] * (1 + named)
    assert table["prediction"].to_pylist() == [1.25, None, pytest.approx(-1e-7), 3]
    if named:
        names = [line.split("\t")[0] for line in written["tsv"].decode().split("\n")]
        assert names == ["a b", texts[1], "", "two lines", ""]


def test_prediction_with_names_resumes_to_the_same_bytes(tmp_path):
    rows = 3 * BATCH["cpu"] + 5
    sequences = [f"{L}{'ACGT' * (n % 9 + 1)}{R}" for n in range(rows)]
    (tmp_path / "rows.fa").write_text("".join(f">name{n}\n{sequence}\n" for n, sequence in enumerate(sequences)))
    model = save_model(tmp_path / "model", ASSAY)

    def predicted(output, named, progress=lambda *_: None):
        request = PredictionRequest(
            model, [str(tmp_path / "rows.fa")], str(tmp_path / output), workers=1, header_names=named
        )
        return predict_files(request, progress).rows_resumed, (tmp_path / output).read_text().splitlines()

    def end(done, _total, _resumed):
        if done >= 2 * BATCH["cpu"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predicted("out.tsv", True, end)
    resumed, lines = predicted("out.tsv", True)
    assert resumed == 2 * BATCH["cpu"]
    assert lines == [f"name{n}\t{line}" for n, line in enumerate(predicted("plain.tsv", False)[1])]
