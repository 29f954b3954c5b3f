"""Rows that a model was fine-tuned on are counted, and the other rows are also scored alone."""

import json
import shutil

import numpy as np
import pytest

from model.artifacts.json_files import read_json
from model.cli.evaluate import describe_evaluation
from model.prediction.evaluate import WITHOUT_TRAINING_ROWS, evaluate
from model.prediction.evaluation_request import EvaluationRequest
from model.prediction.files import predict_files
from model.prediction.request import PredictionRequest
from model.reporting.evaluation_page import write_evaluation
from model.runs.training_rows import find_training_rows
from model.scoring.scores import score_regression
from pipeline.errors import UserError
from tests.model.run_fixtures import held_out_rows
from tests.model.saved_model import save_model

TRAIN, TEST, NEW = 30, 20, 5


@pytest.fixture(scope="module")
def run(made, finished_run, tmp_path_factory):
    """A run directory with a model, and a table of training rows, test rows and new rows in a known order."""
    folder = tmp_path_factory.mktemp("training-rows")
    run = shutil.copytree(finished_run, folder / "run")
    save_model(run / "model", made.config.assay)
    train, test = (held_out_rows(made, split)[1][:count] for split, count in (("train", TRAIN), ("test", TEST)))
    left, right = made.config.assay.left_adapter, made.config.assay.right_adapter
    new = [f"{left}{'ACGT' * 18}{base * 8}{right}" for base in "ACGTN"]
    rows = [*train[1:], *test, *new, train[0].lower(), train[1], left]  # the last row is invalid
    order = np.random.default_rng(3).permutation(len(rows))
    is_training = np.array([*[True] * (TRAIN - 1), *[False] * (TEST + NEW), True, True, False])[order]
    labels = np.random.default_rng(4).normal(size=len(rows)).round(3)
    lines = [f"{rows[place]}\t{label}\t{place % 2}\n" for place, label in zip(order, labels, strict=True)]
    (folder / "rows.tsv").write_text("sequence\texpression\tset\n" + "".join(lines))
    return run, is_training


def request_of(run, model="", **options):
    overrides = ("assay.lower_case=upper",)
    inputs = [str(run.parent / "rows.tsv")]
    return EvaluationRequest(run / model, inputs, "-", workers=1, overrides=overrides, **options)


def predict(request, folder):
    output = str(folder / "out.tsv")
    return predict_files(
        PredictionRequest(request.model, request.inputs, output, workers=1, overrides=request.overrides)
    )


def test_training_rows_are_counted_and_the_other_rows_scored_alone(run, tmp_path, monkeypatch):
    run, is_training = run
    monkeypatch.setattr("model.runs.training_rows.BUFFER_ROWS", 7)
    result, rows = evaluate(request_of(run, group="set"))
    assert np.array_equal(rows.is_training, is_training)
    assert result.training_rows == TRAIN + 1
    others = score_regression(rows.predictions[~is_training, 0], rows.labels[~is_training, 0])
    assert result.scores_without_training_rows == {"expression": others}
    assert (others.rows, result.scores["expression"].rows) == (TEST + NEW, TRAIN + 1 + TEST + NEW)
    assert json.loads(json.dumps(result.as_dict()))["scores_without_training_rows"]["expression"]["rows"] == TEST + NEW
    lines = "\n".join(describe_evaluation(result))
    page = write_evaluation(result, rows, run, tmp_path / "page.html").page
    for text in (lines, (tmp_path / "page.html").read_text()):
        assert page == str(tmp_path / "page.html")
        assert f"{TRAIN + 1} of {len(is_training)} rows are training rows" in text
        assert f"expression{WITHOUT_TRAINING_ROWS}" in text


def test_predict_counts_training_rows_beside_its_correlation(run, tmp_path):
    run, _ = run
    result = predict(request_of(run, "model"), tmp_path)
    assert (result.label_scores.rows, result.label_scores.training_rows) == (TRAIN + 1 + TEST + NEW, TRAIN + 1)


def test_without_training_rows_nothing_is_added(run, tmp_path):
    run, is_training = run
    lines = (run.parent / "rows.tsv").read_text().splitlines(keepends=True)
    other = [line for line, is_known in zip(lines, [False, *is_training], strict=True) if not is_known]
    (tmp_path / "rows.tsv").write_text("".join(other))
    request = EvaluationRequest(run, [str(tmp_path / "rows.tsv")], "-", workers=1)
    result, _ = evaluate(request)
    assert (result.training_rows, result.scores_without_training_rows) == (0, {})
    assert result.titled_scores == result.scores
    assert "training rows" not in "\n".join(describe_evaluation(result))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("built again", "not the dataset of the training"),
        ("missing", "nowhere.duckdb: not the dataset of the training"),
        ("corrupt", "not a DuckDB file"),
        ("no run", "holds no run.json"),
    ],
)
def test_a_dataset_that_is_not_that_of_the_training_is_not_used(run, tmp_path, change, problem):
    copy = change_run(run[0], tmp_path, change)
    with pytest.raises(UserError, match=problem):
        find_training_rows(copy / "model", np.zeros(3, np.uint64))


def test_scores_do_not_need_the_dataset(run, tmp_path):
    copy = change_run(run[0], tmp_path, "missing")
    result, rows = evaluate(request_of(copy))
    assert (result.rows, result.training_rows, rows.is_training) == (len(run[1]), None, None)
    assert "note: not checked for training rows" in "\n".join(describe_evaluation(result))
    assert predict(request_of(copy), tmp_path).label_scores.training_rows is None


def change_run(run, folder, change):
    """Copy a run and its table with another record of its dataset."""
    copy = shutil.copytree(run, folder / "run")
    shutil.copy(run.parent / "rows.tsv", folder)
    (folder / "bad.duckdb").write_text("no database")
    for name in ("run.json", "summary.json"):
        facts = read_json(copy / name)
        if change == "built again":
            facts["dataset_key"] = "0" * 64
        elif change != "no run":
            facts["config"]["dataset"]["path"] = f"{folder}/{'nowhere' if change == 'missing' else 'bad'}.duckdb"
        (copy / name).write_text(json.dumps(facts))
    if change == "no run":
        (copy / "run.json").unlink()
    return copy
