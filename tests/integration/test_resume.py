"""Runs that stop early and resume: signals, other ranks, corrupt and foreign checkpoints, full disks."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from model.artifacts.manifest import find_corruption
from model.runs.metrics_file import read_metrics
from model.runs.status import read_status
from tests.integration.conftest import ENVIRONMENT, Workspace

pytestmark = pytest.mark.processes

SCRATCH = ("finetune.start=scratch", "model.dropout=0.0", "finetune.max_epochs=2")
"""Two epochs of 38 steps, 32 of 1,200 promoters each; an evaluation every 10 steps."""


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


def train(workspace, ranks, *arguments, before=(), check=True, script="recording_train.py", timeout=120, **environment):
    (workspace.folder / "recording_train.py").write_text((Path(__file__).parent / "recording_train.py").read_text())
    done = subprocess.run(
        [*before, *launched(ranks), script, *arguments],
        cwd=workspace.folder, capture_output=True, text=True,
        env={**ENVIRONMENT, **environment}, timeout=timeout, check=False,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs", "trained-on-*"))
    return Workspace(tmp_path / "work")


@pytest.fixture(scope="module")
def never_stopped(prepared):
    """The run directory of the same training on one rank from beginning to end."""
    train(prepared, 1, *SCRATCH, "run.name=never-stopped")
    return prepared.folder / "runs" / "never-stopped"


def same_weights(run, other):
    a, b = ((r / "model" / "model.safetensors").read_bytes() for r in (run, other))
    return a == b


def check_same_training(stopped, never_stopped):
    """The evaluations and the weights of two runs are equal, up to rounding."""
    before, after = (evaluations(run) for run in (never_stopped, stopped))
    assert after.keys() == before.keys()
    for step, line in after.items():
        assert line["valid_loss"] == pytest.approx(before[step]["valid_loss"], rel=1e-6)
    a, b = (load_file(run / "model" / "model.safetensors") for run in (stopped, never_stopped))
    for name, weight in a.items():
        np.testing.assert_allclose(weight, b[name], rtol=0, atol=1e-5)


def test_resume_in_mid_epoch_with_other_ranks_and_zero_stages(copy, never_stopped):
    """Each promoter is trained on once per epoch; losses and weights equal those of the uninterrupted run.

    Pearson is excluded: so early, predictions differ in their last digits only, so that rounding changes it.
    """
    stage_2 = json.loads((copy.folder / "ds_config.json").read_text())
    stage_2["zero_optimization"]["stage"] = 2
    (copy.folder / "stage-2.json").write_text(json.dumps(stage_2))
    again = ("--deepspeed_config", "stage-2.json")
    first = train(copy, 2, *SCRATCH, STOP_AT="0:12")
    assert "stopped    finetune after step 13" in first.stdout
    status = read_status(copy.folder / "runs" / "paper" / "status.json")
    assert status.items() >= {"state": "interrupted", "stage": "finetune", "step": 13, "exit_code": 0}.items()
    second = train(copy, 1, *SCRATCH, *again, STOP_AT="1:5")
    assert "was written by 2 ranks, ZeRO 1, fp32: converting it for 1 rank, ZeRO 2, fp32" in second.stderr
    assert "resumes from the checkpoint of step 13" in second.stderr
    third = train(copy, 2, *SCRATCH)
    assert "converting it for 2 ranks, ZeRO 1, fp32" in third.stderr
    assert not (copy.folder / "runs/paper/checkpoints/finetune/universal").exists()
    lines = [json.loads(x) for file in copy.folder.glob("trained-on-*") for x in file.read_text().splitlines()]
    for epoch in (0, 1):
        times = Counter(i for e, _, ids in lines if e == epoch for i in ids)
        assert len(times) == 1200
        assert set(times.values()) == {1}
    check_same_training(copy.folder / "runs" / "paper", never_stopped)


def tags(run):
    return sorted((run / "checkpoints" / "finetune").glob("step-*"))


def test_corrupt_and_foreign_checkpoints_are_named(copy, never_stopped):
    """Of four checkpoints, the last is truncated, one has a flipped bit, one lacks a file: the first is read."""
    run = copy.folder / "runs" / "paper"
    train(copy, 1, *SCRATCH, "run.keep_checkpoints=4", STOP_AT="1:5")
    assert [path.name for path in tags(run)] == [f"step-{n:09d}" for n in (20, 30, 38 + 2, 38 + 6)]
    shutil.copytree(run, copy.folder / "runs" / "foreign")
    first, lacking, wrong, cut = tags(run)
    assert {find_corruption(path) for path in tags(run)} == {""}
    AutoModelForSequenceClassification.from_pretrained(first / "huggingface")
    (lacking / "mp_rank_00_model_states.pt").unlink()
    flipped = bytearray((wrong / "mp_rank_00_model_states.pt").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (wrong / "mp_rank_00_model_states.pt").write_bytes(flipped)
    optimizer = cut / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    os.truncate(optimizer, optimizer.stat().st_size // 2)
    done = train(copy, 1, *SCRATCH)
    assert (
        f"{lacking.relative_to(copy.folder)} is corrupt; skipped: mp_rank_00_model_states.pt is missing" in done.stderr
    )
    assert "step-000000040 is corrupt; skipped: mp_rank_00_model_states.pt has other bytes" in done.stderr
    assert "step-000000044 is corrupt; skipped: zero_pp_rank_0_mp_rank_00_optim_states.pt has" in done.stderr
    assert "resumes from the checkpoint of step 20" in done.stderr
    assert evaluations(run) == evaluations(never_stopped)
    assert same_weights(run, never_stopped)
    shutil.rmtree(copy.folder / "runs" / "foreign" / "checkpoints" / "pretrain", ignore_errors=True)
    (copy.folder / "runs" / "foreign" / "run.json").unlink()
    foreign = train(copy, 1, *SCRATCH, "run.name=foreign", "finetune.learning_rate=2e-3", check=False)
    assert foreign.returncode == 1
    assert "runs/foreign/checkpoints/finetune/step-000000044 belongs to another run (other settings)" in foreign.stderr


@pytest.mark.long
def test_full_disk_ends_the_run_and_it_resumes_with_space(copy, never_stopped):
    """relaunch does not restart after it."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted, which needs root")
    (copy.folder / "runs").mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(copy.folder / "runs"))
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        again = ("promoter-bert", "relaunch", "--max-restarts", "3")
        full = train(copy, 1, *SCRATCH, "run.keep_checkpoints=99", before=again, check=False)
        run = copy.folder / "runs" / "paper"
        assert full.returncode == 1
        output = full.stdout + full.stderr
        assert re.search(r"(written, 0 MB are free|No space left on device).*checkpoint.* is (whole|intact)", output)
        assert "Traceback" not in output
        messages = [line for line in full.stderr.splitlines() if line.startswith("relaunch: ")]
        assert messages == ["relaunch: not restarted: the error above must be fixed first"]
        assert tags(run)
        assert {find_corruption(path) for path in tags(run)} == {""}
        subprocess.run(["mount", "-o", "remount,size=50m", str(copy.folder / "runs")], check=True)
        done = train(copy, 1, *SCRATCH)
        assert "resumes from the checkpoint" in done.stderr
        assert same_weights(run, never_stopped)
    finally:
        subprocess.run(["umount", str(copy.folder / "runs")], check=False)


def test_shards_changed_during_a_run_are_named(copy):
    done = train(copy, 1, *SCRATCH, check=False, SPOIL_AT="0:31")
    assert done.returncode == 1
    assert "shards/k3/finetune/train-00000" in done.stderr
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tags(copy.folder / "runs/paper")][-1] == "step-000000030"


def test_loss_that_is_not_finite_ends_the_run(copy):
    done = train(copy, 1, *SCRATCH, "finetune.learning_rate=1e30", check=False)
    assert done.returncode == 1
    assert "a lower finetune.learning_rate" in done.stderr
    assert "Traceback" not in done.stderr
    assert not tags(copy.folder / "runs/paper")


TWO = ("--num_accelerators", "2")


@pytest.mark.parametrize(
    ("launcher", "number", "to_all", "code"),
    [
        (["python"], signal.SIGTERM, False, 0),
        pytest.param(["python"], signal.SIGUSR1, False, 0, marks=pytest.mark.long),
        pytest.param(["deepspeed", *TWO], signal.SIGTERM, False, -signal.SIGTERM, marks=pytest.mark.long),
        (["deepspeed", *TWO], signal.SIGINT, True, -signal.SIGINT),
        pytest.param(["torchrun", "--nproc-per-node", "2"], signal.SIGTERM, False, 1, marks=pytest.mark.long),
    ],
)
def test_signal_to_the_launcher_ends_the_run_with_a_checkpoint(copy, launcher, number, to_all, code):
    """Launchers have their own exit codes; the processes end with 0. A second run is refused meanwhile."""
    run = copy.folder / "runs" / "paper"
    port = ["--master_port", free_port()] if len(launcher) > 1 else []
    with (copy.folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*launcher, *port, "train.py", *SCRATCH, "finetune.max_epochs=500", "finetune.early_stop=999"],
            cwd=copy.folder, env=ENVIRONMENT, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    wait_until(lambda: read_metrics(run / "metrics.jsonl"), process)
    if launcher == ["python"]:
        second = copy.run(
            "python", "train.py", *SCRATCH, "finetune.max_epochs=500", "finetune.early_stop=999", check=False
        )
        assert second.returncode == 1
        assert f"process {process.pid} is training in" in second.stderr
    (os.killpg if to_all else os.kill)(process.pid, number)
    assert process.wait(timeout=60) == code
    wait_until(lambda: not in_session(process.pid))
    last = tags(run)[-1]
    assert (
        f"stopped    finetune after step {int(last.name[5:])}; " in (copy.folder / "log").read_text()
        or launcher[0] == "torchrun"
    )  # which closes its processes' output first
    assert find_corruption(last) == ""
    assert "training/loop.py" not in (copy.folder / "log").read_text()


def in_session(leader):
    """Return the remaining processes of a session."""
    result = subprocess.run(["ps", "-s", str(leader), "-o", "pid=,stat="], capture_output=True, text=True, check=False)
    return [line for line in result.stdout.splitlines() if "Z" not in line]


def wait_until(met, process=None, seconds=60):
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.05)
