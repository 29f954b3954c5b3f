import signal
import subprocess
import sys

import pytest

from model.cli.app import main
from model.cluster.cleanup import Leftovers
from model.cluster.hosts import parse_target
from model.cluster.relaunch import FIRST_WAIT_S, relaunch
from model.runs.status import State, locate_launch_folder
from tests.conftest import ROOT

pytestmark = pytest.mark.processes


def test_hosts_of_a_command_follow_from_its_options(tmp_path):
    path = tmp_path / "hostfile"
    path.write_text("a slots=2\nb slots=2\nc slots=2\n")

    def hosts(*words):
        return parse_target(["deepspeed", *words, "train.py", "--include", "nonsense"]).hosts

    assert hosts("--hostfile", str(path)) == ["a", "b", "c"]
    assert hosts(f"--hostfile={path}", "--include", "a:1@c") == ["a", "c"]
    assert hosts("-H", str(path), "--exclude", "a@b:0") == ["b", "c"]
    assert hosts("--hostfile", str(path), "--include", "b") == []  # DeepSpeed does not use ssh for a single host
    assert hosts("--num_accelerators", "2") == []
    assert parse_target(["deepspeed", "--ssh_port", "2222", "-H", str(path), "train.py"]).ssh_port == 2222
    assert parse_target(["torchrun", "--hostfile", str(path), "train.py"]).hosts == []


@pytest.mark.parametrize(("code", "starts"), [(2, 1), (3, 2)])
def test_a_usage_error_is_not_restarted(tmp_path, monkeypatch, code, starts):
    monkeypatch.setattr("model.cluster.relaunch.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("model.cluster.relaunch.GRACE_S", 0.0)
    command = ["sh", "-c", f"echo >> {tmp_path}/starts; exit {code}"]
    assert relaunch(command, 1, lambda _: None) == code
    assert len((tmp_path / "starts").read_text()) == starts


@pytest.mark.parametrize(
    ("second", "ends"),
    [
        (Leftovers(running=0, states=[State.RUNNING]), True),  # killed there
        (Leftovers(running=0, states=[]), True),  # never started there
        (Leftovers(problem="no answer"), True),
        (Leftovers(running=0, states=[State.FINISHED]), False),  # while the first host writes its results
        (Leftovers(running=1, states=[State.STARTING]), False),
    ],
)
def test_failed_host_ends_the_command_on_the_others(tmp_path, monkeypatch, second, ends):
    monkeypatch.setattr("model.cluster.relaunch.CHECK_EVERY_S", 0.3)
    (tmp_path / "hostfile").write_text("first slots=1\nsecond slots=1\n")
    (tmp_path / "deepspeed").write_text(f"#!/bin/sh\nexec sleep {60 if ends else 2}\n")
    (tmp_path / "deepspeed").chmod(0o755)

    def query(host, _target, _launch, *grace):
        return Leftovers() if grace else second if host == "second" else Leftovers(running=1)

    monkeypatch.setattr("model.cluster.relaunch._query", query)
    monkeypatch.setattr("model.cluster.relaunch.GRACE_S", 0.0)
    lines = []
    code = relaunch([str(tmp_path / "deepspeed"), "--hostfile", str(tmp_path / "hostfile")], 0, lines.append)
    assert code == (128 + signal.SIGTERM if ends else 1)
    assert "restarts are used up" in lines[-1]


RUNS = """
import os, pathlib, sys
from model.runs.status import RunStatus, State, locate_launch_record
from pipeline.errors import UserError
tries = pathlib.Path("tries"); n = int(tries.read_text()) if tries.exists() else 0; tries.write_text(str(n + 1))
print("error: directory  stopped", flush=True)  # printed text must not matter
state = sys.argv[1:][n]
with open("launches", "a") as file:
    file.write(os.environ["PYTHON_PROMOTER_BERT_LAUNCH"] + "\\n")
status = RunStatus(locate_launch_record(os.environ))
with status:
    if state == "crashed":
        os._exit(3)
    if state == "user_error":
        raise UserError("no shards here")
    if state == "failed":
        raise ValueError("a bug")
    status.state = State(state)
"""


def run_attempts(tmp_path, monkeypatch, name, *ends, max_restarts=2):
    """Relaunch a script whose attempts have these ends. Returns exit code, number of starts and reported lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("model.cluster.relaunch.FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "tries").unlink(missing_ok=True)
    (tmp_path / name).write_text(f"#!{sys.executable}\n{RUNS}")
    (tmp_path / name).chmod(0o755)
    lines = []
    code = relaunch([str(tmp_path / name), *ends], max_restarts, lines.append)
    return code, int((tmp_path / "tries").read_text()), lines


def test_run_is_restarted_until_it_is_finished(tmp_path, monkeypatch):
    code, starts, lines = run_attempts(tmp_path, monkeypatch, "run", "crashed", "failed", "finished")
    assert (code, starts) == (0, 3)
    assert "ended with exit code 3" in lines[0]
    assert "ended with exit code 1" in lines[1]
    launches = (tmp_path / "launches").read_text().split()
    assert len(set(launches)) == 3  # so that records of different attempts are not mixed
    assert not any(locate_launch_folder(launch).exists() for launch in launches)


@pytest.mark.parametrize("name", ["run", "deepspeed"])
def test_exit_code_0_does_not_prove_success(tmp_path, monkeypatch, name):
    """DeepSpeed returns 0 if its launcher is killed, and train.py if it is interrupted after a checkpoint."""
    assert run_attempts(tmp_path, monkeypatch, name, "finished")[:2] == (0, 1)
    for end, outcome in (("interrupted", "was interrupted after"), ("running", "ended before it was finished after")):
        code, starts, lines = run_attempts(tmp_path, monkeypatch, name, *[end] * 3)
        assert (code, starts) == (1, 3)
        assert len([line for line in lines if outcome in line]) == 2


@pytest.mark.parametrize(("name", "restarts"), [("any-command", 0), ("deepspeed", 2)])
def test_exit_code_of_a_command_without_records(tmp_path, monkeypatch, name, restarts):
    monkeypatch.setattr("model.cluster.relaunch.FIRST_WAIT_S", 0.01)
    (tmp_path / name).symlink_to("/bin/true")
    lines = []
    assert relaunch([str(tmp_path / name)], 2, lines.append) == (1 if restarts else 0)
    assert len([line for line in lines if "ended before it was finished after" in line]) == restarts


def test_restarts_are_limited(tmp_path, monkeypatch):
    code, starts, lines = run_attempts(tmp_path, monkeypatch, "run", *["crashed"] * 9)
    assert (code, starts) == (3, 3)
    assert "2 restarts are used up" in lines[-1]


def test_user_error_is_not_restarted(tmp_path, monkeypatch):
    code, starts, lines = run_attempts(tmp_path, monkeypatch, "run", "failed", "user_error", "finished")
    assert (code, starts) == (1, 2)
    assert "must be fixed first" in lines[-1]


def test_help_shows_the_first_wait(capsys):
    with pytest.raises(SystemExit):
        main(["relaunch", "--help"])
    assert f"{FIRST_WAIT_S:.0f} s" in " ".join(capsys.readouterr().out.split())


def test_sigterm_ends_the_run_without_a_restart(tmp_path):
    script = "import time; print('up', flush=True); time.sleep(60)"
    command = [sys.executable, "-m", "model.cli", "relaunch", sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as loop:
        assert loop.stdout.readline() == b"up\n"
        loop.send_signal(signal.SIGTERM)
        out, _ = loop.communicate(timeout=30)
    assert out == b""
    assert loop.returncode == 128 + signal.SIGTERM
