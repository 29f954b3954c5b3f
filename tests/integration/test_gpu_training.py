"""train.py with a GPU's own configuration, on the CPU: stop, resume, other ranks and ZeRO stages."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from model.runs.metrics_file import read_metrics
from model.runs.status import read_status
from tests.integration.conftest import Workspace
from tests.integration.test_resume import SCRATCH, evaluations, train

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(1800)]

TOLERANCE = 5e-3
"""Relative tolerance of validation losses: the weights of the model are rounded to fp16."""


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs", "trained-on-*"))
    shutil.copy(Path(__file__).parent / "gpu_train.py", tmp_path / "work")
    workspace = Workspace(tmp_path / "work")
    values = json.loads((workspace.folder / "ds_config.json").read_text())
    assert values["fp16"]["enabled"]
    for zero in (1, 2):
        values["zero_optimization"]["stage"] = zero
        (workspace.folder / f"zero-{zero}.json").write_text(json.dumps(values))
    return workspace


def start(copy, ranks, zero, name, optimizer, **environment):
    arguments = (
        *SCRATCH,
        f"run.name={name}",
        f"finetune.optimizer={optimizer}",
        "--deepspeed_config",
        f"zero-{zero}.json",
    )
    return train(copy, ranks, *arguments, script="gpu_train.py", timeout=400, **environment)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_fp16_training_resumes_on_other_ranks_and_zero_stages(copy, optimizer):
    whole = start(copy, 1, 1, "whole", optimizer)
    assert "fp16, ZeRO 1" in whole.stdout
    for file in copy.folder.glob("trained-on-*"):
        file.unlink()
    start(copy, 2, 2, "parts", optimizer, STOP_AT="0:12")
    status = read_status(copy.folder / "runs" / "parts" / "status.json")
    assert status.items() >= {"state": "interrupted", "stage": "finetune", "step": 13}.items()
    second = start(copy, 1, 1, "parts", optimizer, STOP_AT="1:5")
    assert "was written by 2 ranks, ZeRO 2, fp16: converting it for 1 rank, ZeRO 1, fp16" in second.stderr
    start(copy, 1, 2, "parts", optimizer)
    lines = [json.loads(x) for file in copy.folder.glob("trained-on-*") for x in file.read_text().splitlines()]
    for epoch in (0, 1):
        times = Counter(i for e, _, ids in lines if e == epoch for i in ids)
        assert (len(times), set(times.values())) == (1200, {1})
    runs = [copy.folder / "runs" / name for name in ("parts", "whole")]
    parts, never = (evaluations(run) for run in runs)
    assert parts.keys() == never.keys()
    for step, line in parts.items():
        assert line["valid_loss"] == pytest.approx(never[step]["valid_loss"], rel=TOLERANCE)
    for run in runs:
        scales = [line["loss_scale"] for line in read_metrics(run / "metrics.jsonl") if "loss_scale" in line]
        assert scales
        assert min(scales) >= 1
