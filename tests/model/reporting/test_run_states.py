"""Pages of runs that are unfinished, incomplete, moved or corrupt."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet
import pytest

from model.reporting.predictions import query_dataset
from model.reporting.run_page import write_report
from model.reporting.settings_section import settings_section
from model.runs.read import read_run
from pipeline.dataset.database import open_dataset
from pipeline.errors import UserError
from tests.model.reporting.svg_reader import read_figures
from tests.model.run_fixtures import finish, log, section_text, start, text_of


def test_run_that_has_just_started(made, tmp_path):
    folder = start(made, tmp_path)
    result = write_report(folder)
    text = text_of((folder / "report.html").read_text())
    assert not result.finished
    assert "This run is not finished" in text
    assert "Nothing was logged yet." in text
    assert "Settings and machine" in text
    assert "Labels and the threshold" in text
    assert not {"Scores", "Pretraining", "Calibration"} & set(re.findall(r"<h2>(.*?)</h2>", text))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], "BERT"), (["model.architecture=modernbert"], "ModernBERT"),
        (["model.architecture=modernbert", "model.kmer_embedding=composed"], "ModernBERT with composed k-mers"),
    ],
)  # fmt: skip
def test_settings_name_the_architecture(made, tmp_path, settings, name):
    rows = dict(settings_section(read_run(start(made, tmp_path, *settings))).contents[0].rows)
    assert rows["model"].startswith(f"{name}: 1 layer")


def test_a_run_is_found_from_its_model_folder(made, tmp_path):
    folder = start(made, tmp_path)
    (folder / "model").mkdir()
    with pytest.raises(UserError, match=r"holds no run\.json"):
        read_run(folder / "model")
    (folder / "model" / "config.json").touch()
    assert read_run(folder / "model").folder == folder


def test_interrupted_run_shows_its_curves(made, tmp_path):
    folder = start(made, tmp_path)
    log(folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:15]) + '{"stage": "fine')  # a kill in the middle of a line
    result = write_report(folder)
    page = (folder / "report.html").read_text()
    assert result.missing == ["Scores and predictions are written at the end of the run."]
    assert "60 of finetune" in page
    assert "Fine-tuning: loss" in read_figures(page)
    assert "Calibration" not in read_figures(page)


def test_validation_split_is_shown_without_a_test_split(made, tmp_path):
    folder = start(made, tmp_path)
    log(folder)
    finish(made, folder, ("valid",), intervals=False)
    result = write_report(folder)
    assert result.missing[0].startswith("There is no test split.")
    page = (folder / "report.html").read_text()
    assert "150 promoters of the validation split" in text_of(page)
    assert "95 %" not in section_text(page, "Scores")


def test_missing_predictions_or_dataset_is_named(made, finished_run, tmp_path):
    folder = start(made, tmp_path)
    finish(made, folder, ())
    assert "no held-out predictions" in write_report(folder).missing[0]
    moved = tmp_path / "moved"
    shutil.copytree(finished_run, moved)
    for name in ("run.json", "summary.json"):
        facts = json.loads((moved / name).read_text())
        facts["config"]["dataset"]["path"] = "elsewhere.duckdb"
        (moved / name).write_text(json.dumps({**facts, "started_in": "/started"}))
    result = write_report(moved)
    assert result.missing == [
        "No dataset at /started/elsewhere.duckdb or elsewhere.duckdb, so labels and predictions are not shown; "
        f"fix: promoter-bert report {moved} --dataset PATH/elsewhere.duckdb"
    ]
    assert "Fine-tuning: loss" in read_figures((moved / "report.html").read_text())
    assert write_report(moved, dataset=made.config.dataset.path).missing == []


def test_dataset_is_found_from_any_working_directory(made, finished_run, tmp_path, monkeypatch):
    """Relative paths start at the working directory of the training, also after that directory has moved."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    folder = project / "runs" / "first"
    shutil.copytree(finished_run, folder)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    dataset = project / "dataset.duckdb"
    shutil.copy(made.config.dataset.path, dataset)
    (elsewhere / "dataset.duckdb").write_text("another one")

    def started_in(place):
        for name in ("run.json", "summary.json"):
            facts = json.loads((folder / name).read_text())
            facts["config"]["dataset"]["path"], facts["config"]["run"]["path"] = "dataset.duckdb", "runs"
            (folder / name).write_text(json.dumps(facts | ({"started_in": str(place)} if place else {})))

    for place in (None, project, tmp_path / "moved away"):
        started_in(place)
        assert query_dataset(read_run(folder), None).info is not None
    with pytest.raises(
        UserError, match=rf"nowhere: no such dataset; .*trained on; fix: omit --dataset to use {dataset}$"
    ):
        write_report(folder, dataset=tmp_path / "nowhere")


def test_a_dataset_of_an_earlier_version_gives_the_same_results(made, finished_run, tmp_path):
    """It has neither the column `label` of `predictions` nor the view `measurements`."""
    run, older = read_run(finished_run), tmp_path / "older.duckdb"
    shutil.copy(made.config.dataset.path, older)
    with open_dataset(older, read_only=False) as connection:
        connection.execute("drop view measurements; alter table predictions drop column label")
    assert query_dataset(run, older) == query_dataset(run, None)


def test_invalid_input_raises(made, finished_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished_run, other)
    facts = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**facts, "dataset_key": "0123456789abcdef" * 4}))
    foreign = tmp_path / "foreign"
    shutil.copytree(finished_run, foreign)
    rows = pa.table({"id": [1, 10**9], "split": ["test"] * 2, "prediction": [1.0, 2.0]})
    pa.parquet.write_table(rows, foreign / "predictions.parquet")
    cut_off = tmp_path / "cut_off"
    shutil.copytree(finished_run, cut_off)
    (cut_off / "predictions.parquet").write_bytes((finished_run / "predictions.parquet").read_bytes()[:100])
    broken = tmp_path / "broken"
    shutil.copytree(finished_run, broken)
    (broken / "summary.json").write_text("{")
    hollow = tmp_path / "hollow"
    shutil.copytree(finished_run, hollow)
    (hollow / "run.json").write_text("")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.html"
    for folder, message in (
        (other, r"not the dataset that .* was trained on; expected key 0123456789abcdef"),
        (foreign, "1 of 2 promoters are not in the dataset"),
        (cut_off, "predictions.parquet: cannot be read"),
        (broken, r"summary.json: corrupt \(.*rm .*summary.json, then"),
        (hollow, r"run.json: empty; .*rm .*run.json, then"),
        (tmp_path / "empty", "holds no run.json"),
        (tmp_path / "nowhere", "no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            write_report(folder, out)
    with pytest.raises(UserError, match="no such dataset"):
        write_report(finished_run, out, tmp_path / "none.duckdb")
    with pytest.raises(UserError, match=r"ending in \.html"):
        write_report(finished_run, tmp_path / "report.pdf")
    with pytest.raises(UserError, match=r"no folder .*typo; fix: mkdir"):
        write_report(finished_run, tmp_path / "typo" / "report.html")
    assert not (tmp_path / "typo").exists()
    assert not out.exists()
