"""Watchdogs of real processes that do what ranks may do; nothing of torch, so each ends in seconds."""

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

RANK = """
import os, sys, time
from model.watchdog.client import Watchdog
from pipeline.errors import UserError
port, key = int(sys.argv[1]), sys.argv[2]
watchdog = Watchdog(os.environ)
watchdog.imports_done()
if os.environ["RANK"] != "0":
    watchdog.join("127.0.0.1", port, key)
else:
    port = watchdog.listen("127.0.0.1", key)
print(port, flush=True)
word = input()
if word == "goodbye":
    watchdog.finish()
elif word == "error":
    watchdog.report_error(UserError("no shards here"))
    sys.exit("error: no shards here")
elif word == "fail":
    watchdog.report_error(ValueError("what"))
    sys.exit("a traceback")
time.sleep(60)
"""


@pytest.fixture
def ranks():
    """Start ranks that wait for a command each."""
    started: list[subprocess.Popen[str]] = []

    def start(count: int, before=int) -> list["subprocess.Popen[str]"]:
        key, port = secrets.token_hex(16), "0"
        for rank in range(count):
            environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count)}
            process = subprocess.Popen(
                [sys.executable, "-c", RANK, port, key], cwd=ROOT, text=True, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            started.append(process)
            answer = process.stdout.readline().strip()
            if rank == 0:
                port = answer
                before(int(port))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def say(process, word):
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def ended(processes) -> list[tuple[int, str]]:
    """Return exit code and standard error of each, when all have ended."""
    return [(process.wait(timeout=30), process.stderr.read()) for process in processes]


def test_killed_rank_ends_all_ranks(ranks):
    first, second, third = ranks(3)
    time.sleep(2)
    third.kill()
    for code, errors in ended([first, second]):
        assert code == -signal.SIGKILL
        assert "lost: rank 2 on " in errors
        assert f"(process {third.pid}): killed" in errors


def test_failed_rank_prints_its_error_and_ends_the_others(ranks):
    first, second = ranks(2)
    time.sleep(2)
    say(second, "fail")
    (code, errors), (own_code, own_errors) = ended([first, second])
    assert code == -signal.SIGKILL
    assert "lost: rank 1 on " in errors
    assert "ValueError: what" in errors
    assert own_code == 1
    assert own_errors == "a traceback\n"


def test_failure_caused_by_a_lost_rank_names_the_lost_rank(ranks):
    first, second = ranks(2)
    time.sleep(2)
    say(first, "fail")
    time.sleep(0.5)
    second.kill()
    ((code, errors),) = ended([first])
    assert code == -signal.SIGKILL
    assert "lost: rank 1 on " in errors
    assert "traceback" not in errors


def test_user_error_of_all_ranks_is_left_to_them(ranks):
    processes = ranks(3)
    time.sleep(2)
    for process in processes:
        say(process, "error")
    for code, errors in ended(processes):
        assert code == 1
        assert errors.endswith("error: no shards here\n")


def test_finished_ranks_are_not_lost(ranks):
    first, second, third = ranks(3)
    time.sleep(2)
    say(first, "goodbye")  # the one that all the others are connected to
    time.sleep(2.5)
    assert [process.poll() for process in (second, third)] == [None, None]
    say(second, "goodbye")
    say(third, "error")
    ((code, errors),) = ended([third])
    assert (code, errors) == (1, "error: no shards here\n")


def test_connection_without_the_key_is_ignored(ranks):
    def stray(port):
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(Exception):  # noqa: B017, PT011
            Client(("127.0.0.1", port), authkey=b"wrong")

    first, second = ranks(2, before=stray)
    time.sleep(3)
    assert [first.poll(), second.poll()] == [None, None]
    second.kill()
    ((_, errors),) = ended([first])
    assert "lost: rank 1 on " in errors


def test_rank_ends_with_its_watchdog(ranks):
    (first,) = ranks(1)
    (watchdog,) = psutil.Process(first.pid).children()
    watchdog.kill()
    ((code, errors),) = ended([first])
    assert code == ExitCode.FAILED
    assert f"watchdog of process {first.pid} exited" in errors


def test_single_rank():
    watchdog = Watchdog({**os.environ, "RANK": "0", "WORLD_SIZE": "1"})
    assert watchdog.listen("127.0.0.1", "00" * 16) > 0
    watchdog.finish()
