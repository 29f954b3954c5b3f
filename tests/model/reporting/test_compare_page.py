"""Page that compares runs."""

import json
import re
import shutil

import numpy as np
import pytest

from model.artifacts.manifest import Layout, StageProgress, write_manifest
from model.reporting.compare_page import compare_runs, differences, score_lines
from model.reporting.run_sections import TITLES, explain_stage
from model.runs.metrics_file import read_metrics
from model.runs.read import read_run
from pipeline.errors import UserError
from pipeline.reporting.palette import BLUE, ORANGE
from tests.model.reporting.svg_reader import read_figures
from tests.model.run_fixtures import log, start, text_of


@pytest.fixture(scope="module")
def run(finished_run):
    return finished_run


@pytest.fixture(scope="module")
def second(made, tmp_path_factory):
    folder = start(
        made, tmp_path_factory.mktemp("run"), "run.name=second", "finetune.learning_rate=5e-4", "model.hidden=32"
    )
    log(folder, readings=6)
    return folder


def test_validation_scores_and_problems_of_scale_are_named(run, tmp_path):
    """Validation rows also chose the weights; the warning of the scale is that of the run's own summary."""
    folders = [tmp_path / name for name in ("one", "two")]
    moments = {"prediction_mean": 1.0, "prediction_sd": 0.001, "label_mean": 1.0, "label_sd": 1.0}
    for folder, name in zip(folders, ("one", "two"), strict=True):
        shutil.copytree(run, folder)
        summary = json.loads((folder / "summary.json").read_text())
        score = summary["scores"]["valid"]
        if name == "two":
            score["scale_problems"] = {"": {"pearson": 0.7, "r2": 0.002, **moments}}
        (folder / "summary.json").write_text(json.dumps({**summary, "run": name, "scores": {"valid": score}}))
    comparison = compare_runs(folders, tmp_path / "compare.html")
    warnings = [line for line in score_lines(comparison) if line.startswith("warning: ")]
    assert [str(folders[1]) in warning for warning in warnings] == [False, True]
    assert "validation split" in warnings[0]
    assert "R2 0.002" in warnings[1]
    page = text_of((tmp_path / "compare.html").read_text())
    assert page.count("Warning: ") == 2


def test_comparison_of_two_runs(run, second, tmp_path):
    out = tmp_path / "compare.html"
    comparison = compare_runs([run, second], out)
    assert comparison.same_promoters
    assert comparison.differences == {"model.hidden": [16, 32], "finetune.learning_rate": [1e-3, 5e-4]}
    assert [each["run"] for each in comparison.runs] == ["first", "second"]
    summary = json.loads((run / "summary.json").read_text())
    assert comparison.runs[0]["scores"] == summary["scores"]
    assert (comparison.runs[1]["finished"], comparison.runs[1]["scores"]) == (None, {})
    assert score_lines(comparison) == [
        f"  first   test Pearson {summary['scores']['test']['pearson']:.4f} (0.1110 to 0.8880)",
        "  second  not finished",
    ]
    page = out.read_text()
    assert "second is not finished." in page
    assert "Loss: the mean squared error of the standardized labels" in text_of(page)
    assert "cannot be compared" not in text_of(page)
    assert "model.hidden 16 32 finetune.learning_rate 0.001 0.0005" in text_of(page)
    figures = read_figures(page)
    for stage, metric, title in (
        ("pretrain", "loss", "Pretraining: training loss (nats)"),
        ("pretrain", "valid_accuracy", "Pretraining: validation accuracy"),
        ("finetune", "valid_loss", "Fine-tuning: validation loss"),
        ("finetune", "valid_pearson", "Fine-tuning: validation Pearson"),
        ("finetune", "promoters_per_second", "Fine-tuning: promoters per second"),
    ):
        for folder, colour in ((run, BLUE), (second, ORANGE)):
            lines = read_metrics(folder / "metrics.jsonl")
            points = [(line["epoch"], line[metric]) for line in lines if line["stage"] == stage and metric in line]
            (line,) = figures[title][0].lines(colour)
            assert line == pytest.approx(np.array(points), rel=1e-3)
    assert figures["Scores"][0].boxes(BLUE)[0, 1] == pytest.approx(summary["scores"]["test"]["pearson"], abs=1e-3)


def test_numbers_of_processes_that_differ_are_listed(made, tmp_path):
    folders = [start(made, tmp_path / name, f"run.name={name}") for name in ("one", "two")]
    for step, folder, ranks in ((5, folders[0], 4), (10, folders[0], 1), (10, folders[1], 2)):
        checkpoint = folder / "checkpoints" / "finetune" / f"step-{step:09d}"
        checkpoint.mkdir(parents=True)
        write_manifest(checkpoint, {}, Layout(ranks, 1, "fp32"), StageProgress(step, None, 0, 1.0, False))
    assert differences([*map(read_run, folders)]) == {"processes": [1, 2]}


def test_run_without_pretraining_has_no_curve_and_no_legend(made, run, tmp_path):
    other = start(made, tmp_path, "run.name=other", "finetune.start=scratch")
    log(other)
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(line for line in lines if '"stage": "finetune"' in line))
    starting = start(made, tmp_path, "run.name=starting")
    compare_runs([run, other, starting], tmp_path / "compare.html")
    page = (tmp_path / "compare.html").read_text()
    text = text_of(page)
    assert "other was not pretrained, so it has no curve." in text
    assert "starting has not logged stage pretrain yet, so it has no curve." in text
    assert "start of fine-tuning (finetune.start) pretrained weights random weights pretrained weights" in text
    svgs = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    legends = {stage: next(svg for svg in svgs if f"<title>{stage}: colours" in svg) for stage in TITLES.values()}
    assert [">other<" in legends[stage] for stage in TITLES.values()] == [False, True]
    assert not any(">starting<" in legend for legend in legends.values())


def test_losses_of_different_k_are_drawn_per_base(made, run, tmp_path):
    """exp(loss / k), and no figure per k-mer. Fine-tuning has the same labels, so its loss stays."""
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (other / "summary.json").unlink()
    facts = json.loads((other / "run.json").read_text())
    facts["config"]["run"]["name"], facts["config"]["shards"]["k"] = "other", 6
    (other / "run.json").write_text(json.dumps(facts))
    compare_runs([run, other], tmp_path / "k.html")
    figures = read_figures((tmp_path / "k.html").read_text())
    titles = {title for title in figures if title.startswith("Pretraining")}
    assert not any("loss" in title or "accuracy" in title for title in titles)
    for metric, name in (("loss", "training"), ("valid_loss", "validation")):
        for folder, colour, k in ((run, BLUE, 3), (other, ORANGE, 6)):
            lines = [x for x in read_metrics(folder / "metrics.jsonl") if x["stage"] == "pretrain" and metric in x]
            expected = [(x["epoch"], np.exp(x[metric] / k)) for x in lines]
            (line,) = figures[f"Pretraining: {name} perplexity per base"][0].lines(colour)
            assert line == pytest.approx(np.array(expected), rel=1e-3)
    assert "Fine-tuning: training loss" in figures


def test_runs_with_the_same_name_or_other_datasets(run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    same = compare_runs([run, twin], tmp_path / "same.html")
    assert [each["run"] for each in same.runs] == [str(run), str(twin)]
    assert same.differences == {}
    assert "None: the runs have the same settings" in (tmp_path / "same.html").read_text()
    facts = json.loads((twin / "run.json").read_text())
    facts["config"]["assay"]["left_adapter"] = ""
    summary = json.loads((twin / "summary.json").read_text())
    (twin / "summary.json").write_text(json.dumps({**summary, "config": facts["config"]}))
    (twin / "run.json").write_text(json.dumps({**facts, "dataset_key": "0" * 64}))
    other = compare_runs([run, twin], tmp_path / "other.html")
    assert not other.same_promoters
    assert list(other.differences) == ["assay.left_adapter", "dataset_key"]
    assert "assay.left_adapter TGCATTTTTTTCACATC (empty) dataset_key" in text_of((tmp_path / "other.html").read_text())
    assert score_lines(other)[-1].startswith("note: The runs differ in dataset or splits")
    assert "The runs differ in dataset or splits" in (tmp_path / "other.html").read_text()


def test_runs_with_different_losses_are_not_comparable(made, run, tmp_path):
    other = start(made, tmp_path, "run.name=other", "finetune.loss=smooth_l1")
    both = [read_run(run), read_run(other)]
    text = " ".join(explain_stage(both, "finetune"))
    assert "Loss: the mean squared error or the smooth L1 loss of the standardized labels" in text
    assert "The curves of different losses (finetune.loss) cannot be compared." in text
    assert "cannot be compared" not in " ".join(explain_stage(both, "pretrain"))
    assert explain_stage(both[1:], "finetune")[1].startswith("Loss: the smooth L1 loss of the standardized")


def test_all_invalid_runs_are_named_in_one_error(run, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "summary.json").write_text("")
    with pytest.raises(UserError) as error:
        compare_runs([run, tmp_path / "nowhere", broken, run], tmp_path / "none.html")
    nowhere, empty, duplicate, fix = str(error.value).splitlines()
    assert "nowhere: no such folder" in nowhere
    assert "broken/summary.json: empty" in empty
    assert duplicate.startswith(f"{run}: duplicate")
    assert fix == "fix: omit them to compare the others"
    with pytest.raises(UserError, match=r"no folder .*typo"):
        compare_runs([run, broken], tmp_path / "typo" / "none.html")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
