"""Real launchers that are killed or frozen at any time before the training begins, and the resumed run."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import ENVIRONMENT, Workspace
from tests.integration.test_resume import free_port

pytestmark = [pytest.mark.processes, pytest.mark.long]

BOUND = 60
"""Seconds within which all processes of the run have ended."""


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    return Workspace(tmp_path / "work")


def running_in(folder: Path, text: str) -> list[psutil.Process]:
    """Return processes whose command line contains a text, oldest first."""
    running = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and text in " ".join(process.cmdline()):
                running.append(process)
        except (psutil.Error, OSError):
            continue
    return sorted(running, key=lambda process: process.create_time())


COMMAND, LAUNCHER, RANK = "bin/deepspeed --master_port", "-u -m deepspeed.launcher.launch", "-u train.py --local_rank="
WATCHDOG = "-m model.watchdog.process"
EVENTS = [
    # (number and kind of running processes, most seconds after that, victim, its signal, expected message)
    (1, LAUNCHER, 0, LAUNCHER, signal.SIGKILL, "relaunch: the run ended before it was finished"),
    (2, WATCHDOG, 4, RANK + "1", signal.SIGSTOP, "stopped (SIGSTOP) for 20 s"),
    (2, WATCHDOG, 4, RANK + "0", signal.SIGKILL, "lost: rank 0 on "),
    (1, LAUNCHER, 8, COMMAND, signal.SIGTERM, "stopping: the launcher of rank 0 on "),
]


@pytest.mark.timeout(600)
def test_lost_processes_in_the_start_up_end_the_run_and_it_is_restarted(copy):
    """DeepSpeed itself exits with 0 when its launcher is killed; the first event kills it during its imports."""
    moments, log = random.Random(6), copy.folder / "log"
    deepspeed = ("deepspeed", "--master_port", free_port(), "--num_accelerators", "2")
    training = ("train.py", "finetune.start=scratch", "finetune.max_epochs=9")
    with log.open("w") as out:
        loop = subprocess.Popen(
            ["promoter-bert", "relaunch", "--max-restarts", str(len(EVENTS)), *deepspeed, *training],
            cwd=copy.folder, env=ENVIRONMENT, stdout=out, stderr=out,
        )  # fmt: skip

    def wait_until(met):
        end = time.monotonic() + BOUND
        while not met():
            assert time.monotonic() < end, log.read_text()
            assert loop.poll() is None, log.read_text()
            time.sleep(0.05)

    try:
        for number, (count, awaited, seconds, victim, event, message) in enumerate(EVENTS):
            wait_until(lambda n=number: log.read_text().count("; restart ") == n)
            wait_until(lambda n=count, text=awaited: len(running_in(copy.folder, text)) == n)
            time.sleep(moments.uniform(0, seconds))
            running_in(copy.folder, victim)[0].send_signal(event)
            wait_until(lambda n=number: log.read_text().count("; restart ") > n)
            assert message in log.read_text()
        assert loop.wait(120) == 0, log.read_text()
    finally:
        for process in running_in(copy.folder, ""):
            process.kill()
        loop.wait()
    assert (copy.folder / "runs" / "paper" / "summary.json").exists()
