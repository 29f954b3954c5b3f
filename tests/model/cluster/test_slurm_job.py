"""Exit codes and requeues of a Slurm job, with scripts in place of Slurm's programs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.runs.status import ExitCode
from tests.conftest import ROOT

pytestmark = pytest.mark.processes

SRUN = """#!/bin/sh
case "$*" in
*model.cluster.cleanup*) sed -n "$(wc -l < starts)p" states; exit;;
esac
echo start >> starts
trap 'exit 0' TERM
[ ! -e hang ] || while sleep 0.1; do :; done
exit $(sed -n "$(wc -l < starts)p" codes)
"""
SCONTROL = """#!/bin/sh
echo "$*" >> requests
echo "JobId=7 JobState=$(cat state) Requeue=1"
"""
SCANCEL = """#!/bin/sh
echo "scancel $*" >> requests
kill -TERM $(cat training)
"""


@pytest.fixture
def job(tmp_path):
    """Start a job whose trainings end with codes and record states, one per start."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def start(*ends: tuple[int, str], state: str = "RUNNING") -> "subprocess.Popen[str]":
        (tmp_path / "starts").touch()
        (tmp_path / "state").write_text(state)
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code, _ in ends))
        (tmp_path / "states").write_text("".join(f'{{"states": ["{state}"]}}\n' for _, state in ends))
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
        script = "import model.cluster.slurm_job as s, os; s.RESTART_WAIT_S = 0.0; "
        script += "raise SystemExit(s.SlurmJob(os.environ).run(['sh', '-c', 'echo $$ > training; exec srun train']))"
        return subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, **environment}, text=True,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("ends", "state", "code", "starts", "requeues"),
    [
        ([(0, "finished")], "RUNNING", ExitCode.FINISHED, 1, False),
        ([(70, "failed"), (137, "running"), (0, "finished")], "RUNNING", ExitCode.FINISHED, 3, False),
        ([(70, "failed")] * 6, "RUNNING", 70, 6, False),
        ([(137, "user_error")], "RUNNING", ExitCode.USER_ERROR, 1, False),
        ([(2, "user_error")], "RUNNING", ExitCode.USAGE, 1, False),
        ([(0, "interrupted")], "RUNNING", ExitCode.INTERRUPTED, 1, True),
        ([(0, "interrupted")], "CANCELLED", ExitCode.INTERRUPTED, 1, False),
        ([(143, "running")], "CANCELLED", 143, 1, False),
    ],
)
def test_end_of_a_training_decides(job, tmp_path, ends, state, code, starts, requeues):
    assert job(*ends, state=state).wait(timeout=30) == code
    assert len(lines(tmp_path / "starts")) == starts
    assert ("requeue 7" in lines(tmp_path / "requests")) == requeues


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_signal_to_the_job_stops_the_ranks_and_requeues(job, tmp_path, number):
    (tmp_path / "hang").touch()
    process = job((0, "interrupted"))
    deadline = time.monotonic() + 30
    while not lines(tmp_path / "starts"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == ExitCode.INTERRUPTED
    requests = lines(tmp_path / "requests")
    assert requests[0] == "scancel --signal=TERM 7"
    assert requests[-1] == "requeue 7"
