"""A run that ends before its end, and goes on: signals, other ranks, torn and foreign checkpoints, full disks."""

import json
import os
import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from model.tracking import read_metrics
from tests.integration.conftest import ENVIRONMENT, Workspace

SCRATCH = ("finetune.start=scratch", "model.dropout=0.0", "finetune.max_epochs=2")
STEPS = 76
"""Of two epochs over 1,200 promoters, 32 a step."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def launched(ranks):
    if ranks == 1:
        return ["python"]
    return ["deepspeed", "--master_port", free_port(), "--num_accelerators", str(ranks)]


def evaluations(run):
    return {line["step"]: line for line in read_metrics(run / "metrics.jsonl") if "valid_loss" in line}


def train(workspace, ranks, *arguments, check=True, **environment):
    (workspace.folder / "recording_train.py").write_text((Path(__file__).parent / "recording_train.py").read_text())
    done = subprocess.run(
        [*launched(ranks), "recording_train.py", *arguments], cwd=workspace.folder, capture_output=True, text=True,
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1", **environment}, timeout=120, check=False,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    return Workspace(tmp_path / "work")


def test_other_ranks_and_zero_stages_in_mid_epoch(copy):
    """Each promoter of each epoch trained on once; losses and weights as of the run that was never stopped."""
    stage_2 = json.loads((copy.folder / "ds_config.json").read_text())
    stage_2["zero_optimization"]["stage"] = 2
    (copy.folder / "stage-2.json").write_text(json.dumps(stage_2))
    again = ("--deepspeed_config", "stage-2.json")
    first = train(copy, 2, *SCRATCH, STOP_AT="0:12")
    assert "stopped    finetune after step 13; the same command goes on from there" in first.stdout
    second = train(copy, 1, *SCRATCH, *again, STOP_AT="1:5")
    assert "was written by 2 ranks, ZeRO 1, fp32: made readable for 1 rank, ZeRO 2, fp32" in second.stderr
    assert "goes on from the checkpoint of step 13" in second.stderr
    third = train(copy, 2, *SCRATCH)
    assert "made readable for 2 ranks, ZeRO 1, fp32" in third.stderr
    assert not (copy.folder / "runs/paper/checkpoints/finetune/universal").exists()
    lines = [json.loads(x) for file in copy.folder.glob("trained-on-*") for x in file.read_text().splitlines()]
    for epoch in (0, 1):
        times = Counter(i for e, _, ids in lines if e == epoch for i in ids)
        assert len(times) == 1200
        assert set(times.values()) == {1}
    train(copy, 1, *SCRATCH, "run.name=never-stopped")
    runs = [copy.folder / "runs" / name for name in ("paper", "never-stopped")]
    stopped, never = (evaluations(run) for run in runs)
    assert stopped.keys() == never.keys()
    for step, line in stopped.items():
        assert line["valid_loss"] == pytest.approx(never[step]["valid_loss"], rel=1e-5)
    a, b = (load_file(run / "model" / "model.safetensors") for run in runs)
    worst = max(float(np.abs(a[name] - b[name]).max()) for name in a)
    print("worst", worst, max(abs(stopped[s]["valid_loss"] - never[s]["valid_loss"]) for s in never))
    assert worst < 1e-4
