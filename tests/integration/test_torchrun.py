"""torchrun with one agent per host, here two agents on this machine: a rank is killed, and the training restarts."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from model.runs.metrics_file import read_metrics
from model.runs.status import read_status
from tests.integration.conftest import ENVIRONMENT, Workspace
from tests.integration.test_hosts import check_same
from tests.integration.test_resume import copy, free_port  # noqa: F401

pytestmark = [pytest.mark.processes, pytest.mark.long]

LONG = ("finetune.max_epochs=6", "finetune.early_stop=999", "finetune.evaluate_every=1")


@contextmanager
def agents(workspace: Workspace, restarts: int, *arguments: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Start two agents; their output is in log-0 and log-1."""
    rendezvous = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}", "--local-addr", "127.0.0.1")
    options = ("--nnodes", "2", "--nproc-per-node", "1", *rendezvous, "--max-restarts", str(restarts))
    environment = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "lo"}  # the agents are on one machine and cannot know it
    started = []
    for number in range(2):
        with (workspace.folder / f"log-{number}").open("w") as log:
            started.append(
                subprocess.Popen(
                    ["torchrun", *options, "train.py", *arguments], cwd=workspace.folder, env=environment, stdout=log,
                    stderr=log,
                )
            )  # fmt: skip
    try:
        yield started
    finally:
        for agent in started:
            agent.kill()  # the watchdogs end its rank
            agent.wait()


def logs(workspace: Workspace) -> list[str]:
    return [(workspace.folder / f"log-{number}").read_text() for number in range(2)]


def wait_for_fine_tuning(run: Path) -> None:
    deadline = time.monotonic() + 90
    while not any(line["stage"] == "finetune" and line["step"] > 40 for line in read_metrics(run / "metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def never_killed(prepared) -> Path:
    """The run directory of the same training, uninterrupted, with one agent."""
    prepared.run("torchrun", "--standalone", "--nproc-per-node", "2", "train.py", *LONG, "run.name=never-killed")
    return prepared.folder / "runs" / "never-killed"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("killed", [0, 1])
def test_killed_rank_restarts_on_both_agents_with_the_same_weights(copy, never_killed, killed):  # noqa: F811
    run = copy.folder / "runs" / "paper"
    with agents(copy, 3, *LONG) as both:
        wait_for_fine_tuning(run)
        (rank,) = psutil.Process(both[killed].pid).children()
        os.kill(rank.pid, signal.SIGKILL)
        assert [agent.wait(timeout=150) for agent in both] == [0, 0], logs(copy)
    assert "resumes from the checkpoint of step" in "".join(logs(copy))
    check_same(run, never_killed)


@pytest.mark.timeout(300)
def test_user_error_ends_after_the_restarts(copy):  # noqa: F811
    """torchrun restarts after every exit code, so the number of restarts is the limit."""
    with agents(copy, 1, "finetune.learning_rate=1e30", "finetune.start=scratch") as both:
        assert [agent.wait(timeout=150) for agent in both] == [1, 1]
    assert read_status(copy.folder / "runs" / "paper" / "status.json")["state"] == "user_error"
    assert sum(log.count("a lower finetune.learning_rate") for log in logs(copy)) >= 2
