"""Tests of differences between runs on the page of a comparison."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.reporting.compare_page import compare_runs, score_lines
from model.reporting.paired_tests import describe_tests
from model.scoring.paired_bootstrap import compare_correlations
from tests.model.run_fixtures import held_out_rows, section_text, text_of


def copy_run(run, folder, noise=0.0, reverse=False, **facts):
    """Copy a run under another name, with noisier predictions, in another order of rows, and with other facts."""
    shutil.copytree(run, folder)
    for file in ("run.json", "summary.json"):
        values = json.loads((folder / file).read_text()) | facts
        values["config"]["run"]["name"] = folder.name
        (folder / file).write_text(json.dumps(values))
    table = pq.read_table(folder / "predictions.parquet")
    values = table["prediction"].to_numpy() + noise * np.random.default_rng(1).normal(size=len(table))
    table = table.set_column(table.column_names.index("prediction"), "prediction", pa.array(values))
    pq.write_table(table.take(list(range(len(table)))[::-1]) if reverse else table, folder / "predictions.parquet")
    return folder


def predictions(folder):
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    return np.array([row["prediction"] for row in sorted(table, key=lambda row: row["id"]) if row["split"] == "test"])


def test_each_run_is_tested_against_the_first(made, finished_run, tmp_path):
    noisy = copy_run(finished_run, tmp_path / "noisy", noise=0.5, reverse=True)
    same = copy_run(finished_run, tmp_path / "same")
    result = compare_runs([finished_run, noisy, same], tmp_path / "compare.html")
    _, _, labels = held_out_rows(made, "test")
    expected = compare_correlations(predictions(noisy), predictions(finished_run), labels)
    first, second = result.tests
    assert (first.run, first.reference, first.split, first.label) == ("noisy", "first", "test", None)
    assert asdict(first).items() >= asdict(expected).items()
    assert first.rows == len(labels)
    assert (second.run, second.pearson.value, second.pearson.p_value) == ("same", 0, 1)
    assert result.not_tested == []
    written = json.loads(json.dumps(asdict(result)))["tests"][0]
    assert written["spearman"]["p_value"] == first.spearman.p_value
    text = section_text((tmp_path / "compare.html").read_text(), "Differences of the scores")
    assert f"noisy {len(labels):,} (test) {first.pearson.value:+.4f}" in text
    assert "1,000 resamples show no p below 0.002." in text
    lines = describe_tests(result.tests, result.not_tested)
    assert lines[0].startswith(f"  noisy minus first: Pearson {first.pearson.value:+.4f} (")


def test_runs_of_other_rows_are_not_tested(made, finished_run, tmp_path):
    fewer = copy_run(finished_run, tmp_path / "fewer")
    table = pq.read_table(fewer / "predictions.parquet")
    pq.write_table(table.slice(0, len(table) - 5), fewer / "predictions.parquet")
    other = copy_run(finished_run, tmp_path / "other", dataset_key="0" * 64)
    result = compare_runs([finished_run, fewer, other], tmp_path / "compare.html")
    assert result.tests == []
    assert (
        result.not_tested[0] == "fewer and first were not tested against each other: they were scored on different rows"
    )
    assert result.not_tested[1].startswith(
        "other and first were not tested against each other: other: its dataset is not"
    )
    assert "fewer and first were not tested" in text_of((tmp_path / "compare.html").read_text())


def test_another_dataset_with_the_same_held_out_rows_is_tested(made, finished_run, tmp_path):
    """As one with fewer training rows has."""
    import duckdb

    copied = tmp_path / "dataset.duckdb"
    shutil.copy(made.config.dataset.path, copied)
    with duckdb.connect(str(copied)) as connection:
        connection.execute("update dataset set key = ?", ["1" * 64])
    other = copy_run(finished_run, tmp_path / "other", dataset_key="1" * 64)
    for file in ("run.json", "summary.json"):
        values = json.loads((other / file).read_text())
        values["config"]["dataset"]["path"] = str(copied)
        (other / file).write_text(json.dumps(values))
    result = compare_runs([finished_run, other], tmp_path / "compare.html")
    assert (result.same_promoters, len(result.tests), result.not_tested) == (False, 1, [])
    assert "same held-out rows" in score_lines(result)[-1]
    with duckdb.connect(str(copied)) as connection:
        connection.execute("update promoters set expression = expression + 1 where id = 3")
    result = compare_runs([finished_run, other], tmp_path / "compare.html")
    assert result.tests == []
    assert "different rows" in result.not_tested[0]


def test_several_labels_are_tested_one_by_one(tmp_path):
    from model.baselines.train import train_baseline
    from tests.several_labels import LABELS, make_two_labels

    two = make_two_labels(tmp_path, 300)
    summary = train_baseline(two.config, "ridge")
    folder = two.config.run.directory.parent / summary["run"]
    noisy = copy_run(folder, tmp_path / "noisy", noise=1.0)
    result = compare_runs([folder, noisy], tmp_path / "compare.html")
    assert [(test.run, test.label) for test in result.tests] == [("noisy", label) for label in LABELS]
    assert all(test.pearson.value < 0 for test in result.tests)
    assert sum(test.rows for test in result.tests) < 60  # a third of the labels of 30 promoters is missing
    assert summary["scores"]["test"]["pearson/B"] > 0.9
    assert set(summary["baseline"]["alpha"]) == set(LABELS)


def test_unfinished_runs_are_named(made, finished_run, tmp_path):
    from tests.model.run_fixtures import start

    other = start(made, tmp_path, "run.name=other")
    result = compare_runs([finished_run, other], tmp_path / "compare.html")
    assert result.not_tested == ["other and first were not tested against each other: other: it is not finished"]


def test_scatter_names_scores_and_unit(finished_run, tmp_path):
    from model.reporting.run_page import write_report

    run, unit = copy_run(finished_run, tmp_path / "unit"), "log2(RNA/DNA)"
    for file in ("run.json", "summary.json"):
        values = json.loads((run / file).read_text())
        values["config"]["assay"]["unit"] = unit
        (run / file).write_text(json.dumps(values))
    write_report(run)
    page = (run / "report.html").read_text()
    score = json.loads((run / "summary.json").read_text())["scores"]["test"]
    for text in (f"r = {score['pearson']:.3f}", f"ρ = {score['spearman']:.3f}", f"n = {score['rows']}"):
        assert f">{text}<" in page
    axis = f"({unit})"
    assert page.count(f">predicted expression {axis}<") == 1
    assert page.count(f">{axis}<") >= 4  # below the names of quantities
