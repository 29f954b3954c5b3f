"""Schedules of a stage: plateau, early stopping, start of fine-tuning; and the logged metrics."""

import json
import shutil
import subprocess
import time
from itertools import pairwise

import duckdb
import numpy as np
import pytest
from safetensors.numpy import load_file

from model.runs.metrics_file import read_metrics
from tests.integration.conftest import ENVIRONMENT, Workspace

pytestmark = pytest.mark.processes


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    return Workspace(tmp_path / "work")


def test_learning_rate_falls_at_each_plateau_until_early_stopping(copy):
    """One evaluation per step, and no improvement counts: the rate falls to a tenth at each but the first two.

    Adam's steps are as large as the rate, so the change of the weights shows which rate was applied. In the end they
    do not change any more, and the stage stops after its limit of evaluations without improvement.
    """
    copy.run(
        "python", "train.py", "--stage", "pretrain", "pretrain.evaluate_every=0.01", "pretrain.max_epochs=9",
        "pretrain.early_stop=5", "run.keep_checkpoints=99", "pretrain.plateau.factor=0.1", "model.dropout=0.0",
        "pretrain.plateau.patience=0", "pretrain.plateau.threshold=1e9", "pretrain.plateau.min_lr=0",
    )  # fmt: skip
    run = copy.folder / "runs" / "paper"
    lines = read_metrics(run / "metrics.jsonl")
    accuracy = {line["step"]: line["valid_accuracy"] for line in lines if "valid_accuracy" in line}
    rates = {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line}
    last = max(accuracy)
    assert last < 81
    assert accuracy.keys() == rates.keys() == set(range(1, last + 1))
    best = max(accuracy, key=lambda step: (accuracy[step], -step))
    assert last == best + 5
    folders = [run / "checkpoints" / "pretrain" / f"step-{step:09d}" / "huggingface" for step in accuracy]
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    moved = [np.median(np.concatenate([np.abs(b[n] - a[n]).ravel() for n in a])) for a, b in pairwise(weights)]
    # Step n moved the weights by moved[n - 2] at rates[n].
    changes = [(rates[n + 1] / rates[n], moved[n - 1] / moved[n - 2]) for n in range(2, 5)]
    assert sum(rate == pytest.approx(0.1) for rate, _ in changes) >= 2
    for rate, movement in changes:
        assert movement == pytest.approx(rate, rel=0.5)
    assert moved[-1] < 1e-4 * moved[0]


def test_another_runs_frozen_encoder_stays_and_the_rest_learns(trained):
    run = trained.folder / "runs" / "frozen"
    pretrained = trained.folder / "runs" / "paper" / "pretrained"
    frozen = ("python", "train.py", "finetune.start=frozen", f"finetune.pretrained={pretrained}", "run.name=frozen")
    trained.run(*frozen, "run.keep_checkpoints=9")
    assert not (run / "pretrained").exists()
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, run / "model"))
    shared = [name for name in before if name.startswith("bert.")]
    assert len(shared) > 10
    for name in shared:
        np.testing.assert_array_equal(before[name], after[name])
    first, *_, last = sorted((run / "checkpoints" / "finetune").glob("step-*"))
    earlier, later = (load_file(step / "huggingface" / "model.safetensors") for step in (first, last))
    moved = {name for name in earlier if not np.array_equal(earlier[name], later[name])}
    assert {"classifier.weight", "classifier.bias"} <= moved
    assert moved == earlier.keys() - set(shared)


def test_metrics_are_logged_during_the_run_and_add_up(copy):
    process = subprocess.Popen(
        ["python", "train.py", "finetune.start=scratch", "finetune.max_epochs=4"], cwd=copy.folder, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    run = copy.folder / "runs" / "paper"
    select = f"select max(step) from read_json('{run}/metrics.jsonl') where stage = 'finetune'"
    seen = set()
    while process.poll() is None:
        if read_metrics(run / "metrics.jsonl"):
            seen.add(duckdb.sql(select).fetchall()[0][0])
        time.sleep(0.05)
    output = process.stdout.read()
    assert process.returncode == 0, output
    assert len(seen) > 2
    assert "parameters" in output
    assert "FLOP per promoter" in output
    assert "gradients  not clipped" in output
    assert "promoters/s" in output
    assert "FLOP utilization " in output
    (last,) = [line for line in read_metrics(run / "metrics.jsonl") if line["step"] == 152 and "loss" in line]
    assert 0 <= last["data_wait"] < 1
    assert 0 < last["flop_utilisation"] < 1.5
    assert last["seconds_left"] == 0
    tokens = last["tokens_per_second"] / last["promoters_per_second"]
    assert tokens == pytest.approx(3 * 2 + 88, rel=0.02)  # three frames of 90 bases, flanks included
    assert json.loads((run / "summary.json").read_text())["training"]["finetune"]["steps"] == 152
