"""Scores of labelled rows, per group, equal those of predictions in memory; the page and the table show them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.cli.evaluate import describe_evaluation
from model.prediction.evaluate import NO_GROUP, evaluate
from model.prediction.evaluation_request import EvaluationRequest, check_evaluation
from model.prediction.files import predict_files
from model.prediction.predictor import Predictor
from model.prediction.request import PredictionRequest
from model.reporting.evaluation_page import MOST_DOTS, count_cells, write_evaluation
from model.scoring.metrics import pearson, spearman
from model.scoring.scores import score_regression
from pipeline.errors import UserError
from tests.conftest import small_config
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
ROWS = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a model and labelled rows of three groups; some rows have no label, no group or an invalid sequence."""
    folder = tmp_path_factory.mktemp("evaluate")
    save_model(folder / "model", small_config(Path()).assay)
    rng = np.random.default_rng(0)
    rows = [
        {
            "chrom": "" if number == 9 else f"chr{rng.choice([2, 10, 7])}",
            "seq": f"{L}{''.join(rng.choice(list('ACGT'), 60))}{R}".lower()
            if number == 5
            else f"{L}{''.join(rng.choice(list('ACGT'), rng.integers(60, 80)))}{R}",
            "log2": None if number == 7 else float(np.round(rng.normal(), 2)),
            "count": int(rng.integers(0, 99)),
        }
        for number in range(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    text = "".join("\t".join("" if cell is None else str(cell) for cell in row.values()) + "\n" for row in rows)
    (folder / "rows.tsv").write_text("\t".join(rows[0]) + "\n" + text)
    return folder


def request_of(folder, form="tsv", **options):
    return EvaluationRequest(folder / "model", [str(folder / f"rows.{form}")], "-", workers=1, **options)


@pytest.mark.parametrize(("form", "labels"), [("tsv", ("log2",)), ("parquet", ())])
def test_scores_are_those_of_predictions_in_memory(folder, form, labels):
    result, rows = evaluate(request_of(folder, form, label_columns=labels, group="chrom"))
    table = pq.read_table(folder / "rows.parquet")
    sequences, chroms = table["seq"].to_pylist(), table["chrom"].to_pylist()
    with pytest.warns(UserWarning, match="lower-case"):
        predicted = Predictor(folder / "model").predict(sequences)
    measured = np.array([np.nan if label is None else label for label in table["log2"].to_pylist()])
    assert rows.predictions[:, 0] == pytest.approx(predicted, abs=1e-5, nan_ok=True)
    assert np.array_equal(rows.labels[:, 0], measured, equal_nan=True)
    assert result.scores == {"expression": score_regression(rows.predictions[:, 0], measured)}
    assert (result.rows, result.scores["expression"].rows) == (ROWS, ROWS - 2)
    assert result.problems == {"lower-case bases": 1}
    assert list(result.groups) == [NO_GROUP, "chr2", "chr7", "chr10"]
    for group, scores in result.groups.items():
        where = np.array([(chrom or NO_GROUP) == group for chrom in chroms])
        assert scores["expression"] == score_regression(rows.predictions[where, 0], measured[where])
    assert (result.sequence_column, result.label_columns, result.group_column) == (
        "seq",
        {"expression": "log2"},
        "chrom",
    )


def test_several_labels_are_read_by_their_names_and_scored_each(folder, tmp_path):
    model = save_model(tmp_path / "model", small_config(Path()).assay, labels=("count", "log2"))
    request = replace(request_of(folder, "parquet", group="chrom"), model=model)
    result, rows = evaluate(request)
    table = pq.read_table(folder / "rows.parquet")
    assert result.label_columns == {"count": "count", "log2": "log2"}
    assert rows.labels[:, 0].tolist() == table["count"].to_pylist()
    for place, label in enumerate(("count", "log2")):
        assert result.scores[label] == score_regression(rows.predictions[:, place], rows.labels[:, place])
        assert set(result.groups["chr2"]) == {"count", "log2"}
    assert result.mean_pearson == pytest.approx(np.mean([score.pearson for score in result.scores.values()]))
    empty, _ = evaluate(replace(request, label_columns=("chrom", "log2")))  # a label without values has no score
    assert (empty.scores["count"].rows, empty.mean_pearson) == (0, empty.scores["log2"].pearson)
    swapped, _ = evaluate(replace(request, label_columns=("log2", "count")))
    assert swapped.scores["count"] == score_regression(rows.predictions[:, 0], rows.labels[:, 1])
    assert "mean Pearson over the labels" in "\n".join(describe_evaluation(result))
    with pytest.raises(UserError, match="no column Dev"):
        check_evaluation(
            replace(request, model=save_model(tmp_path / "fly", small_config(Path()).assay, labels=("Dev", "x")))
        )


def test_page_and_lines_show_every_group(folder, tmp_path):
    result, rows = evaluate(request_of(folder, group="chrom"))
    result = write_evaluation(result, rows, folder / "model", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    lines = "\n".join(describe_evaluation(result))
    for group, scores in result.groups.items():
        shown = f"{scores['expression'].pearson:.4f}" if scores["expression"].rows > 1 else "-"
        assert re.search(rf"^{re.escape(group)} .*{shown}", lines, re.MULTILINE)
        assert f"{group}</td>" in page
        assert (f"{scores['expression'].pearson:.3f}" if scores["expression"].rows > 1 else "-") in page
    assert page.count("<svg") == 2
    assert lines.endswith(f"page: {tmp_path}/page.html")


def test_many_rows_are_counted_in_cells():
    rng = np.random.default_rng(1)
    measured = rng.normal(size=MOST_DOTS + 1)
    cells = count_cells(measured, measured + rng.normal(size=len(measured)))
    assert sum(cells["promoters"]) == len(measured)
    assert len(set(zip(cells["measured"], cells["predicted"], strict=True))) == len(cells["promoters"])


def test_interrupted_evaluation_with_a_page_resumes(folder, tmp_path):
    request = replace(request_of(folder), output=str(tmp_path / "page.html"))

    def end_after_two_parts(rows, *_):
        if rows > 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(request, end_after_two_parts)
    resumed, _ = evaluate(request)
    assert resumed.rows_resumed == 128
    assert resumed.scores == evaluate(request_of(folder))[0].scores
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_columns": ("log3",)}, "no column log3; it has chrom, seq, log2, count"),
        ({"label_columns": ("log2", "count")}, "--expression-column: expected once per label of the model"),
        ({"group": "species"}, "no column species"),
        ({"output": "page.txt"}, r"page\.txt: expected a name ending in \.html"),
        ({"inputs": ["-"]}, "labelled rows are read from files"),
    ],
)
def test_invalid_requests_raise_before_a_row_is_read(folder, options, message):
    with pytest.raises(UserError, match=message):
        check_evaluation(replace(request_of(folder), **options))


def test_rows_without_groups_or_labels_raise(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("model.prediction.evaluate.MOST_GROUPS", 20)
    with pytest.raises(UserError, match="--by count: more than 20 different values"):
        evaluate(request_of(folder, group="count"))
    with pytest.raises(UserError, match="no number in column chrom"):
        evaluate(request_of(folder, label_columns=("chrom",)))


def test_doubtful_labels_need_an_option_that_the_command_has(folder, tmp_path):
    (tmp_path / "rows.tsv").write_text(f"seq\ta\tb\n{L}ACGT{R}\t1.5\t2.5\n{L}AAAT{R}\t2.5\t3.5\n")
    request = replace(request_of(folder), inputs=[str(tmp_path / "rows.tsv")])
    with pytest.raises(UserError, match=r"ambiguous label column: .*--expression-column a$"):
        check_evaluation(request)


@pytest.mark.parametrize(
    ("header", "label", "is_clear"),
    [
        ("", "", True),
        ("seq\texpression\n", "expression", True),
        ("seq\tgc\n", "gc", False),
        ("seq\tlabel\n", "label", True),
    ],
)
def test_predict_scores_labels_of_a_clear_column(folder, tmp_path, header, label, is_clear):
    table = pq.read_table(folder / "rows.parquet").to_pylist()
    rows = [row for row in table if row["log2"] is not None and row["seq"].isupper()][:70]
    text = "".join(f"{row['seq']}\t{row['log2']}\n" for row in rows)
    (tmp_path / "rows.tsv").write_text(f"{header}{text}{L}ACGT{R}\tnan\nacgtacgtacgt\t1\n")
    result = predict_files(
        PredictionRequest(folder / "model", [str(tmp_path / "rows.tsv")], str(tmp_path / "out.parquet"), workers=1)
    )
    assert "label_scores" not in result.as_dict()
    if not is_clear:
        assert result.label_scores is None
        return
    predicted = pq.read_table(tmp_path / "out.parquet")["prediction"].to_numpy()[: len(rows)]
    measured = np.array([row["log2"] for row in rows])
    scores = result.label_scores
    assert (result.label_column, scores.rows) == (label or "2", len(rows))
    assert (scores.pearson, scores.spearman) == (pearson(predicted, measured), spearman(predicted, measured))


@pytest.mark.parametrize("text", ["acgt\tnan\n", "seq,a,b\nACGT,1,2\nACGT,2,3\n", "seq,expression\nACGT,x\n"])
def test_doubtful_labels_do_not_matter_to_predict(folder, tmp_path, text):
    (tmp_path / "rows.csv").write_text(text.replace("ACGT", f"{L}ACGTACGT{R}").replace("acgt", f"{L}ACGTACGT{R}"))
    result = predict_files(
        PredictionRequest(folder / "model", [str(tmp_path / "rows.csv")], str(tmp_path / "out.tsv"), workers=1)
    )
    assert (result.problems, result.label_scores) == ({}, None)
