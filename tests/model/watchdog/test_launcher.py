"""Launchers and ranks that are killed or frozen at any time of the start-up, without torch, so that tests are short."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from uuid import uuid4

import psutil
import pytest

from model.cluster.cleanup import find_processes
from model.runs.status import LAUNCH
from tests.conftest import ROOT

pytestmark = pytest.mark.processes

COMMAND = """
import os, subprocess, sys
words = [sys.executable, "-c", sys.argv[1], "deepspeed.launcher.launch"]
subprocess.run(words, start_new_session="SSH_CONNECTION" in os.environ)
"""
"""Stands for `deepspeed` on one host, or for sshd: does not forward signals."""
LAUNCHER = """
import os, subprocess, sys
print("launcher", os.getpid(), flush=True)
ranks = [
    subprocess.Popen(
        [sys.executable, "-c", os.environ["RANK_SCRIPT"]],
        env=os.environ | {"CROSS_RANK": "0", "RANK": str(n), "LOCAL_RANK": str(n), "WORLD_SIZE": "2"},
    )
    for n in range(2)
]
print("ranks", *(rank.pid for rank in ranks), flush=True)
for rank in ranks:
    rank.wait()
"""
"""Stands for DeepSpeed's launcher: its ranks outlive it."""
RANK = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: SIGTERM"))
from model.watchdog.client import start_watchdog
with start_watchdog(os.environ):
    end = time.monotonic() + 300
    while time.monotonic() < end:
        sum(range(100_000))  # imports
        time.sleep(0.01)
"""
HANGS = """
import os, signal, time
from model.watchdog.client import start_watchdog
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with start_watchdog(os.environ):
    time.sleep(300)
"""
TIMEOUT_S = 50
"""Time for all processes to end; an idle machine needs three seconds."""


class Run:
    """A command, its launcher and its ranks."""

    def __init__(self, script: str = RANK, ssh: bool = False) -> None:
        self.launch = uuid4().hex
        inherited = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
        environment = {**inherited, LAUNCH: self.launch, "RANK_SCRIPT": script, "PYTHONPATH": str(ROOT)}
        environment |= {"SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"} if ssh else {}
        self.command = subprocess.Popen(
            [sys.executable, "-c", COMMAND, LAUNCHER], env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait_for_ids(self, name: str) -> list[int]:
        """Wait for a line that starts with `name`. Returns its process ids."""
        for line in self.command.stdout:
            if line.startswith(name):
                return [int(number) for number in line.split()[1:]]
        raise AssertionError(self.command.stderr.read())

    def wait(self) -> str:
        """Wait until all processes have ended. Returns the standard error."""
        end = time.monotonic() + TIMEOUT_S
        while processes := find_processes(self.launch):
            assert time.monotonic() < end, processes
            time.sleep(0.1)
        return self.command.communicate()[1]


@pytest.fixture
def start():
    runs: list[Run] = []

    def start_run(script: str = RANK, ssh: bool = False) -> Run:
        runs.append(Run(script, ssh))
        return runs[-1]

    yield start_run
    for run in runs:
        for process in find_processes(run.launch):
            process.kill()
        run.command.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_killed_command(start, number):
    random_numbers = random.Random(int(number))
    runs = []
    for _ in range(6):
        runs.append(start())
        runs[-1].wait_for_ids("launcher")
        time.sleep(random_numbers.uniform(0, 0.6))
        runs[-1].command.send_signal(number)
    for run in runs:
        assert run.wait().count("stopping: the launcher of rank 0 on ") == 1


def test_no_process_outlives_the_killed_ssh(start):
    """sshd starts each command in its own session, so that the launcher leads a group."""
    run = start(ssh=True)
    (launcher,) = run.wait_for_ids("launcher")
    run.command.kill()
    run.command.wait()
    if psutil.Process(launcher).ppid() != 1:
        pytest.skip("process 1 does not adopt orphans here")
    assert "stopping: the launcher of rank 0 on " in run.wait()


def test_no_process_outlives_the_killed_launcher(start):
    random_numbers = random.Random(1)
    runs = []
    for _ in range(6):
        runs.append(start())
        (launcher,) = runs[-1].wait_for_ids("launcher")
        runs[-1].wait_for_ids("ranks")
        time.sleep(random_numbers.uniform(0, 0.6))
        os.kill(launcher, signal.SIGKILL)
    for run in runs:
        assert run.wait().count("stopping: the launcher of rank 0 on ") == 1


def test_rank_that_blocks_sigterm_is_killed_without_its_launcher(start):
    run = start(HANGS)
    run.wait_for_ids("ranks")
    time.sleep(1)
    run.command.kill()
    assert "stopping: the launcher of rank 0 on " in run.wait()


def test_stopped_and_hanging_ranks_are_reported(start):
    stopped, hanging = start(), start(HANGS)
    first, second = stopped.wait_for_ids("ranks")
    end = time.monotonic() + TIMEOUT_S
    while len(find_processes(stopped.launch)) < 6:  # watchdogs included
        assert time.monotonic() < end
    time.sleep(random.Random(2).uniform(0.2, 1))
    os.kill(second, signal.SIGSTOP)
    while second in [process.pid for process in find_processes(stopped.launch)]:
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(first, signal.SIGTERM)  # as DeepSpeed's launcher then does
    name = f"lost: rank 1 on {socket.gethostname()} (process {second}): stopped (SIGSTOP) for 20 s"
    errors = stopped.wait()
    assert name in errors
    assert "rank 0" not in errors
    assert "no progress in its start-up for 40 s" in hanging.wait()


def test_rank_may_outlive_a_shell(start):
    """A shell that starts a rank in the background is not a launcher."""
    run = start("")
    run.wait()
    environment = {**os.environ, LAUNCH: run.launch, "RANK": "0", "WORLD_SIZE": "1", "PYTHONPATH": str(ROOT)}
    shell = ["sh", "-c", '"$0" -c "$1" & sleep 1', sys.executable, RANK]
    subprocess.run(shell, env=environment, check=True, timeout=TIMEOUT_S)
    end = time.monotonic() + TIMEOUT_S
    while len(find_processes(run.launch)) < 2:  # the rank and its watchdog
        assert time.monotonic() < end
    time.sleep(3)
    assert len(find_processes(run.launch)) == 2
