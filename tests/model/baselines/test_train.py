"""promoter-bert baseline: run directories that the readers of runs accept."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from model.baselines.cnn import CnnSettings, CnnTraining, choose_settings
from model.baselines.cnn_optimizer import WEIGHT_DECAY
from model.baselines.train import train_baseline
from model.cli.app import main
from model.reporting.compare_page import compare_runs
from model.reporting.run_page import write_report
from model.runs.read import find_baselines, read_run
from model.scoring.metrics import pearson
from pipeline.dataset.database import open_dataset, rows_of
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from tests.conftest import small_config
from tests.model.run_fixtures import finish, held_out_rows, log, section_text, start


@pytest.fixture(scope="module")
def place(made, tmp_path_factory):
    """Return a folder with a copy of the made dataset, into which baselines publish."""
    folder = tmp_path_factory.mktemp("baseline")
    shutil.copy(made.config.dataset.path, folder / "dataset.duckdb")
    return folder


def configure(made, place, *overrides):
    return small_config(place, f"shards.path={made.config.shards.path}", *overrides)


@pytest.fixture(scope="module")
def ridge(made, place):
    return train_baseline(configure(made, place, "run.name=base"), "ridge")


@pytest.fixture(scope="module")
def cnn(made, place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.baselines.cnn.SCHEDULES", ((None, 1, 64),))
        return train_baseline(configure(made, place, "run.name=base"), "cnn")


@pytest.mark.parametrize("method", ["ridge", "cnn"])
def test_scores_are_those_of_the_predictions_that_are_written(made, place, ridge, cnn, method):
    summary = {"ridge": ridge, "cnn": cnn}[method]
    run = read_run(place / "runs" / f"base-{method}")
    assert run.summary == summary
    assert (run.name, run.baseline["method"]) == (f"base-{method}", method)
    ids, _, labels = held_out_rows(made, "test")
    rows = {row["id"]: row["prediction"] for row in run.predictions().to_pylist() if row["split"] == "test"}
    assert sorted(rows) == sorted(ids)
    score = summary["scores"]["test"]
    predicted = np.array([rows[each] for each in ids])
    assert score["pearson"] == pytest.approx(pearson(predicted, labels), abs=1e-5)
    assert score["mse"] == pytest.approx(np.mean((predicted - labels) ** 2), rel=1e-4)
    assert score["intervals"]["pearson"][0] < score["pearson"] < score["intervals"]["pearson"][1]
    with open_dataset(place / "dataset.duckdb") as connection:
        (published,) = rows_of(connection, "select test_pearson, dataset_key from runs where run = ?", [run.name])
        ((count,),) = rows_of(connection, "select count(*) from predictions where run = ?", [run.name])
    assert published == (score["pearson"], run.facts["dataset_key"])
    assert count == run.predictions().num_rows


def test_ridge_predicts_generated_expression(ridge):
    assert ridge["scores"]["test"]["pearson"] > 0.3


def test_finished_baselines_are_not_repeated_and_other_settings_are_refused(made, place, cnn, ridge, monkeypatch):
    monkeypatch.setattr("model.baselines.cnn.SCHEDULES", ((None, 1, 64),))
    written = [path for path in (place / "runs").glob("base-*/*.*") if path.name != ".lock"]
    before = [path.stat().st_mtime_ns for path in written]
    for method, summary in (("cnn", cnn), ("ridge", ridge)):
        again = train_baseline(configure(made, place, "run.name=base", "model.hidden=32"), method)
        assert again.pop("note") == f"already finished on {summary['finished']}; nothing was trained"
        assert again == summary
    assert before == [path.stat().st_mtime_ns for path in written]
    with pytest.raises(UserError, match=r"base-cnn: .*run\.seed: 0 -> 1.*run\.name="):
        train_baseline(configure(made, place, "run.name=base", "run.seed=1"), "cnn")
    with pytest.raises(UserError, match=r"base-cnn: .*finetune\.max_epochs: 1 -> 3"):
        train_baseline(configure(made, place, "run.name=base"), "cnn", epochs=3)
    start(made, place, "run.name=trained-ridge")
    with pytest.raises(UserError, match=r"the run directory of a training"):
        train_baseline(configure(made, place, "run.name=trained"), "ridge")
    with pytest.raises(UserError, match=r"the run directory of a baseline"):
        start(made, place, "run.name=base-ridge")


def test_an_interrupted_baseline_is_not_taken_for_whole(made, place):
    config = configure(made, place, "run.name=cut")

    def interrupt(done, _total, _note):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_baseline(config, "ridge", on_progress=interrupt)
    run = read_run(place / "runs" / "cut-ridge")
    assert (run.summary, run.predictions()) == (None, None)
    assert run.state == "This run was interrupted. Run the same command to start it again."
    assert "note" not in train_baseline(config, "ridge")
    assert read_run(run.folder).scores


def test_comparison_with_a_run_tests_baselines(made, place, ridge, cnn, tmp_path):
    run = start(made, tmp_path, "run.name=bert", f"run.path={place}/runs")
    log(run)
    finish(made, run)
    folders = [run, place / "runs/base-cnn", place / "runs/base-ridge"]
    result = compare_runs(folders, tmp_path / "compare.html")
    assert [(test.run, test.reference) for test in result.tests] == [("base-cnn", "bert"), ("base-ridge", "bert")]
    assert result.differences["method"] == ["BERT", "CNN", "ridge regression on 1- to 6-mers"]
    assert result.differences["finetune.global_batch"] == [32, 64, None]
    assert "model.hidden" not in result.differences
    assert "base-ridge is a baseline without this stage" in (tmp_path / "compare.html").read_text()
    write_report(run)
    text = section_text((run / "report.html").read_text(), "Baselines")
    assert f"CNN (base-cnn) {cnn['scores']['test']['pearson']:.4f}" in text
    assert f"ridge regression on 1- to 6-mers (base-ridge) {ridge['scores']['test']['pearson']:.4f}" in text
    assert [each.name for each in find_baselines(read_run(run))][:2] == ["base-cnn", "base-ridge"]
    assert find_baselines(read_run(folders[1])) == []


@pytest.mark.parametrize("method", ["ridge", "cnn"])
def test_report_of_a_baseline(place, ridge, cnn, method):
    folder = place / "runs" / f"base-{method}"
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert "<h2>Baselines</h2>" not in page
    assert "method" in section_text(page, "Settings and machine")
    assert ("<h2>Fine-tuning</h2>" in page) == (method == "cnn")


def test_schedules_by_number_of_rows():
    chosen = {rows: choose_settings(rows, 0) for rows in (1000, 8000, 50_000, 500_000, 6_700_000)}
    assert [(each.epochs, each.batch) for each in chosen.values()] == [
        (20, 32),
        (20, 128),
        (8, 128),
        (2, 128),
        (2, 128),
    ]
    assert {each.size for each in chosen.values()} == {"small"}
    augmented = (choose_settings(8000, 0, random_n=0.1), choose_settings(50_000, 0, reverse_complement=True))
    assert [each.epochs for each in augmented] == [80, 32]
    assert choose_settings(8000, 0, epochs=3, random_n=0.1).epochs == 3


def test_cnn_trains_with_the_random_ns_and_strands_of_the_configuration(made, place):
    augmented = {"random_n": 0.1, "reverse_complement": True}
    settings = [f"finetune.{name}={value}" for name, value in augmented.items()]
    runs = {
        name: train_baseline(configure(made, place, f"run.name={name}", *changed), "cnn", epochs=1)
        for name, changed in (("plain", []), ("ns", settings[:1]), ("both", settings))
    }
    assert len({run["scores"]["valid"]["pearson"] for run in runs.values()}) == 3
    assert runs["both"]["config"]["finetune"].items() >= augmented.items()
    assert not augmented.keys() & runs["plain"]["config"]["finetune"].keys()


def test_cnn_trains_with_the_optimizer_of_the_configuration(made, place):
    muon = ["finetune.optimizer=muon", "finetune.weight_decay=0.2"]
    runs = {
        name: train_baseline(configure(made, place, f"run.name={name}", *changed), "cnn", epochs=1)
        for name, changed in (("adam", ["finetune.weight_decay=0.2"]), ("muon", muon))
    }
    assert len({run["scores"]["valid"]["pearson"] for run in runs.values()}) == 2
    adam, muon = (run["config"]["finetune"] for run in runs.values())
    assert "optimizer" not in adam
    assert (adam["weight_decay"], muon["optimizer"], muon["weight_decay"]) == (WEIGHT_DECAY, "muon", 0.2)


def test_command_prints_json_and_refuses_wrong_usage(made, place, ridge, capsys):
    options = [f"dataset.path={place}/dataset.duckdb", f"run.path={place}/runs", "run.name=base"]
    with pytest.raises(SystemExit) as end:
        main(["baseline", "ridge", *options, "--json"])
    assert end.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"] == ridge["scores"]
    for wrong in (["baseline", "lasso"], ["baseline", "ridge", "--learning-rate", "1"]):
        with pytest.raises(SystemExit) as end:
            main(wrong)
        assert end.value.code == 2


def test_missing_dataset_and_shards(made, place, tmp_path):
    with pytest.raises(UserError, match="no such dataset"):
        train_baseline(small_config(tmp_path), "ridge")
    with pytest.raises(UserError, match="promoter-bert shards"):
        train_baseline(configure(made, place, "run.name=other", f"shards.path={tmp_path}/none"), "cnn")
    assert not (place / "runs/other-cnn").exists()


def test_cnn_learns_several_labels(tmp_path, monkeypatch):
    from tests.several_labels import LABELS, make_two_labels

    monkeypatch.setattr("model.baselines.cnn.SCHEDULES", ((None, 4, 32),))
    two = make_two_labels(tmp_path, 400)
    summary = train_baseline(two.config, "cnn")
    assert all(summary["scores"]["test"][f"pearson/{label}"] > 0.4 for label in LABELS)
    table = pq.read_table(two.config.run.directory.parent / summary["run"] / "predictions.parquet")
    assert set(table["label"].to_pylist()) == set(LABELS)
    assert np.isfinite(summary["training"]["finetune"]["best"])


def test_cnn_predicts_a_constant_label(made):
    """With a standard deviation of 0, all predictions are the mean, and the loss is finite."""
    index = replace(read_index(made.shards), label_mean=3.5, label_sd=0.0)
    training = CnnTraining(made.shards, CnnSettings("small", 1, 256, 1e-3, 0), index)
    assert np.isfinite(training.fit().log[0]["loss"])
    assert set(training.predict_rows("valid").prediction) == {3.5}


def test_ridge_with_a_label_without_training_values(tmp_path):
    from tests.several_labels import LABELS, make_two_labels

    two = make_two_labels(tmp_path, 300)
    train = "(select id from finetune where split = 'train')"
    with open_dataset(two.config.dataset.path, read_only=False) as connection:
        connection.execute(f'update promoters set "{LABELS[0]}" = null where id in {train}')
    summary = train_baseline(two.config, "ridge")
    assert (summary["units"]["label_mean"][0], summary["units"]["label_sd"][0]) == (0.0, 1.0)
    assert summary["scores"]["test"][f"pearson/{LABELS[0]}"] == 0
    assert summary["scores"]["test"][f"pearson/{LABELS[1]}"] > 0.4
    json.dumps(summary, allow_nan=False)
