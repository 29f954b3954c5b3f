"""Watchdogs of real processes that behave like ranks, without torch, so that each test takes seconds."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Client

import psutil
import pytest

from model.runs.status import ExitCode
from model.watchdog.client import Watchdog
from tests.conftest import ROOT

pytestmark = pytest.mark.processes

RANK = """
import os, sys, time
from model.watchdog.client import Watchdog
from pipeline.errors import UserError
port, key = int(sys.argv[1]), sys.argv[2]
watchdog = Watchdog(os.environ)
watchdog.report_imports_done()
if os.environ["RANK"] != "0":
    watchdog.join("127.0.0.1", port, key)
else:
    port = watchdog.listen("127.0.0.1", key)
print(port, flush=True)
command = input()
if command == "finish":
    watchdog.finish()
elif command == "error":
    watchdog.report_error(UserError("no shards here"))
    sys.exit("error: no shards here")
elif command == "fail":
    watchdog.report_error(ValueError("a bug"))
    sys.exit("a traceback")
time.sleep(60)
"""


@pytest.fixture
def ranks():
    """Start ranks, each of which waits for a command."""
    processes: list[subprocess.Popen[str]] = []

    def start(count: int, action=int) -> list["subprocess.Popen[str]"]:
        key, port = secrets.token_hex(16), "0"
        for rank in range(count):
            environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count)}
            process = subprocess.Popen(
                [sys.executable, "-c", RANK, port, key], cwd=ROOT, text=True, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            processes.append(process)
            answer = process.stdout.readline().strip()
            if rank == 0:
                port = answer
                action(int(port))
        return processes

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def send(process, command):
    process.stdin.write(f"{command}\n")
    process.stdin.flush()


def wait(processes) -> list[tuple[int, str]]:
    """Wait until all processes have ended. Returns exit code and standard error of each."""
    return [(process.wait(timeout=30), process.stderr.read()) for process in processes]


def test_killed_rank_ends_all_ranks(ranks):
    first, second, third = ranks(3)
    time.sleep(2)
    third.kill()
    for code, errors in wait([first, second]):
        assert code == -signal.SIGKILL
        assert "lost: rank 2 on " in errors
        assert f"(process {third.pid}): killed" in errors


def test_failed_rank_prints_its_error_and_ends_the_others(ranks):
    first, second = ranks(2)
    time.sleep(2)
    send(second, "fail")
    (code, errors), (own_code, own_errors) = wait([first, second])
    assert code == -signal.SIGKILL
    assert "lost: rank 1 on " in errors
    assert "ValueError: a bug" in errors
    assert own_code == 1
    assert own_errors == "a traceback\n"


def test_failure_caused_by_a_lost_rank_names_the_lost_rank(ranks):
    first, second = ranks(2)
    time.sleep(2)
    send(first, "fail")
    time.sleep(0.5)
    second.kill()
    ((code, errors),) = wait([first])
    assert code == -signal.SIGKILL
    assert "lost: rank 1 on " in errors
    assert "traceback" not in errors


def test_user_error_of_all_ranks_is_reported_by_the_ranks_only(ranks):
    processes = ranks(3)
    time.sleep(2)
    for process in processes:
        send(process, "error")
    for code, errors in wait(processes):
        assert code == 1
        assert errors.endswith("error: no shards here\n")


def test_finished_ranks_are_not_reported_as_lost(ranks):
    first, second, third = ranks(3)
    time.sleep(2)
    send(first, "finish")  # all others are connected to this one
    time.sleep(2.5)
    assert [process.poll() for process in (second, third)] == [None, None]
    send(second, "finish")
    send(third, "error")
    ((code, errors),) = wait([third])
    assert (code, errors) == (1, "error: no shards here\n")


def test_connection_without_the_key_is_ignored(ranks):
    def connect_without_key(port):
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(Exception):  # noqa: B017, PT011
            Client(("127.0.0.1", port), authkey=b"wrong")

    first, second = ranks(2, action=connect_without_key)
    time.sleep(3)
    assert [first.poll(), second.poll()] == [None, None]
    second.kill()
    ((_, errors),) = wait([first])
    assert "lost: rank 1 on " in errors


def test_rank_ends_with_its_watchdog(ranks):
    (first,) = ranks(1)
    (watchdog,) = psutil.Process(first.pid).children()
    watchdog.kill()
    ((code, errors),) = wait([first])
    assert code == ExitCode.FAILED
    assert f"watchdog of process {first.pid} exited" in errors


def test_watchdog_of_a_single_rank_listens_and_finishes():
    watchdog = Watchdog({**os.environ, "RANK": "0", "WORLD_SIZE": "1"})
    assert watchdog.listen("127.0.0.1", "00" * 16) > 0
    watchdog.finish()
