"""Two real hosts with their own names, ssh and network: training, its failures, its restarts, and the doctor.

On both hosts, the own name resolves to 127.0.1.1, as on Debian. No ssh setting helps to detect an unreachable host.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from model.runs.metrics_file import read_metrics
from model.runs.status import read_status
from tests.conftest import ROOT
from tests.integration import hosts as lab
from tests.integration.conftest import ENVIRONMENT, Workspace
from tests.integration.test_resume import free_port

pytestmark = [
    pytest.mark.processes,
    pytest.mark.hosts,
    pytest.mark.skipif(bool(lab.missing()), reason=lab.missing()),
]

LONG = ("finetune.max_epochs=24", "finetune.early_stop=1000", "finetune.evaluate_every=1")
"""Enough steps to be killed several times, at little cost each."""
SHORT = ("finetune.max_epochs=4", "finetune.evaluate_every=1")
BOUND = 60
"""Seconds in which everything has ended on every host."""


@pytest.fixture(scope="module")
def workspace(prepared, tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("hosts") / "work"
    shutil.copytree(prepared.folder, folder, ignore=shutil.ignore_patterns("runs"))
    (folder / "hostfile").write_text("host1 slots=1\nhost2 slots=1\n")
    # As the tests' own environment, which does not come along by ssh.
    (folder / ".deepspeed_env").write_text("OMP_NUM_THREADS=1\n")
    return Workspace(folder)


def train_on_one_host(workspace, name: str, *overrides: str) -> Path:
    """Train without interruption on one host with two ranks. Returns the run directory."""
    ranks = ("--num_accelerators", "2", "--master_port", free_port())
    workspace.run("deepspeed", *ranks, "train.py", f"run.name={name}", *overrides)
    return workspace.folder / "runs" / name


def check_same(run: Path, other: Path) -> None:
    """Weights bit for bit, scores and predictions."""
    for model in ("pretrained", "model"):
        a, b = (hashlib.sha256((r / model / "model.safetensors").read_bytes()).hexdigest() for r in (run, other))
        assert a == b, model
    a, b = (json.loads((r / "summary.json").read_text())["scores"] for r in (run, other))
    assert a == b
    a, b = (pq.read_table(r / "predictions.parquet") for r in (run, other))
    assert a.equals(b)


@pytest.mark.timeout(600)
def test_two_hosts_train_the_same_weights_as_one_host(workspace):
    one_host = train_on_one_host(workspace, "one-host", *SHORT)
    with lab.two_hosts() as hosts:
        before = hosts.received(2)
        workspace.run(*hosts.on(1, "deepspeed", "--hostfile", "hostfile", "train.py", *SHORT), timeout=300)
        assert hosts.received(2) - before > 1_000_000  # gradients went over the cable
    check_same(workspace.folder / "runs" / "paper", one_host)


def kill_rank_1(hosts, _command):
    os.kill(hosts.ranks(1)[0], signal.SIGKILL)


def kill_rank_2(hosts, _command):
    os.kill(hosts.ranks(2)[0], signal.SIGKILL)


def stop_rank_2(hosts, _command):
    os.kill(hosts.ranks(2)[0], signal.SIGSTOP)


def kill_launcher_2(hosts, _command):
    os.kill(hosts.processes(2, "-u -m deepspeed.launcher.launch")[-1], signal.SIGKILL)


def pull_cable(hosts, _command):
    hosts.cable(plugged=False)


def kill_pdsh(hosts, _command):
    """The ranks continue; DeepSpeed's exit code is 0."""
    os.kill(hosts.processes(1, "pdsh -S")[0], signal.SIGKILL)


Event = tuple[Callable[[lab.Hosts, subprocess.Popen], None], str]
"""Failure to cause, and the text that the output of `relaunch` must have then."""

EVENTS: list[Event] = [
    (kill_rank_1, "lost: rank 0 on host1 (process "),
    (pull_cable, "no heartbeat for 20 s; its host or the link is down"),
    (stop_rank_2, "stopped (SIGSTOP) for 20 s"),
    (kill_launcher_2, "relaunch: the run was interrupted"),  # it may save a checkpoint before it ends
    (kill_rank_2, "lost: rank 1 on host2 (process "),
    (kill_pdsh, "relaunch: killed leftover processes"),
]


@pytest.mark.timeout(900)
@pytest.mark.long
def test_lost_processes_and_links_end_the_run_and_it_resumes_to_the_same_weights(workspace):
    one_host = train_on_one_host(workspace, "one-host-long", *LONG)
    run, log = workspace.folder / "runs" / "relaunched", workspace.folder / "relaunched.log"
    training = ("deepspeed", "--hostfile", "hostfile", "train.py", "run.name=relaunched", *LONG)
    command = ("promoter-bert", "relaunch", "--max-restarts", str(len(EVENTS)), *training)
    with lab.two_hosts() as hosts, log.open("w") as out:
        loop = subprocess.Popen(hosts.on(1, *command), cwd=workspace.folder, env=ENVIRONMENT, stdout=out, stderr=out)
        try:
            for number, (event, _) in enumerate(EVENTS):
                wait_for(lambda n=number: trained(run) > 40 + 100 * n and hosts.ranks(2), loop, log, 120)
                victims = {
                    pid
                    for host in (1, 2)
                    for pid in (*hosts.ranks(host), *hosts.processes(host, "-m model.watchdog.process"))
                }
                assert len(victims) == 4
                event(hosts, loop)
                wait_for(lambda pids=victims: not any(map(alive, pids)), loop, log, BOUND)
                hosts.cable(plugged=True)
            assert loop.wait(120) == 0
        finally:
            loop.kill()
    assert read_status(run / "status.json").items() >= {"state": "finished", "exit_code": 0}.items()
    output = log.read_text()
    for _, message in EVENTS:
        assert message in output
    assert output.count("; restart ") == len(EVENTS)
    check_same(run, one_host)


def trained(run: Path) -> int:
    """Return the last logged step of fine-tuning."""
    return max((x["step"] for x in read_metrics(run / "metrics.jsonl") if x["stage"] == "finetune"), default=0)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def wait_for(condition, process, log, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)


@pytest.fixture
def project_copy(tmp_path) -> Path:
    """Copy the project's code to another path, so that host 2 can have other code."""
    for package in ("pipeline", "model"):
        shutil.copytree(ROOT / package, tmp_path / "project" / package)
    shutil.copy(ROOT / "config.yaml", tmp_path / "project")
    shutil.copytree(ROOT / "sql", tmp_path / "project" / "sql")
    return tmp_path / "project"


@pytest.mark.timeout(300)
@pytest.mark.long
def test_differences_between_hosts_are_named(workspace, project_copy, tmp_path, monkeypatch):
    """On host 2: other code, another transformers and config, no shards. Each host has its own disk for the runs."""
    other = tmp_path / "other"
    shutil.copytree(project_copy, other / "project")
    with (other / "project" / "model" / "bert" / "rng.py").open("a") as file:
        file.write("# changed\n")
    (other / "project" / "transformers-4.0.0.dist-info").mkdir()
    (other / "project" / "transformers-4.0.0.dist-info" / "METADATA").write_text("Name: transformers\nVersion: 4.0.0\n")
    (other / "shards").mkdir()
    text = (workspace.folder / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("learning_rate: 0.001", "learning_rate: 0.002"))
    runs = workspace.folder / "runs"
    runs.mkdir(exist_ok=True)
    mounts = [
        f"--bind {other / 'project'} {project_copy}",
        f"--bind {other / 'shards'} {workspace.folder / 'shards'}",
        f"--bind {other / 'config.yaml'} {workspace.folder / 'config.yaml'}",
        f"-t tmpfs tmpfs {runs}",
    ]
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(project_copy))
    with lab.two_hosts(first=[f"-t tmpfs -o size=1m tmpfs {runs}"], second=mounts) as hosts:
        doctor = workspace.run(*hosts.on(1, "promoter-bert", "doctor", "--json", "--hostfile", "hostfile"), check=False)
        train = workspace.run(
            *hosts.on(1, "deepspeed", "--hostfile", "hostfile", "train.py", "run.name=differs"),
            check=False,
            timeout=120,
        )
    assert train.returncode == 1
    assert "the hosts do not agree" in train.stderr
    expected = (
        "transformers: ", ", but 4.0.0 on host2", ", but missing or incomplete on host2",
        "learning_rate: 0.001 on host1, but 0.002 on host2", "make setup",
    )  # fmt: skip
    for message in expected:
        assert message in train.stderr
    assert doctor.returncode == 1
    assert not json.loads(doctor.stdout)["ready"]
    wrong = {(f["host"], f["check"]): f for f in json.loads(doctor.stdout)["findings"] if f["state"] == "wrong"}
    checks = ("same software", "same shards", "same config", "shared run folder")
    assert set(wrong) == {*(("host2", check) for check in checks), ("host1", "disk")}
    assert "4.0.0 on host2" in wrong["host2", "same software"]["found"]
    warned = {(f["host"], f["check"]) for f in json.loads(doctor.stdout)["findings"] if f["state"] == "warning"}
    both = {(host, check) for host in ("host1", "host2") for check in ("own name", "ssh keep-alive")}
    assert warned == both


@pytest.mark.timeout(300)
def test_doctor_finds_hosts_ready_or_suggests_fixes(workspace):
    """First ready; then an unreachable host, port in use, full disk, missing shards, comment in .deepspeed_env."""
    (workspace.folder / "runs").mkdir(exist_ok=True)
    with lab.two_hosts() as hosts:
        doctor = hosts.on(1, "promoter-bert", "doctor", "--hostfile", "hostfile")
        fit = workspace.run(*doctor)
        assert fit.stdout.endswith("ready to train\n")
        assert "ok      host2: way: reaches host1 (10.77.0.1), port 29500" in fit.stdout
        assert "ok      host2: shared run folder" in fit.stdout
        hosts.cable(plugged=False)
        environment = workspace.folder / ".deepspeed_env"
        shards, aside = workspace.folder / "shards", workspace.folder / "aside"
        shards.rename(aside)
        environment.write_text("# threads\nOMP_NUM_THREADS=1\n")
        occupied = subprocess.Popen(hosts.on(1, "python", "-c", HOLD_PORT), stdout=subprocess.PIPE, env=ENVIRONMENT)
        try:
            assert occupied.stdout.readline()
            unfit = workspace.run(*doctor, check=False)
        finally:
            occupied.kill()
            aside.rename(shards)
            environment.write_text("OMP_NUM_THREADS=1\n")
    assert unfit.returncode == 1
    output = [line for line in unfit.stdout.splitlines() if line.startswith("WRONG")]
    expected = (
        ".deepspeed_env, line 1",
        "host2: ssh: ",
        "host1: port: 29500: Address already in use",
        "host1: shards: ",
    )
    assert len(output) == len(expected)
    for line, message in zip(output, expected, strict=True):
        assert message in line
    assert unfit.stdout.splitlines()[-1].startswith("4 problems ")


HOLD_PORT = "import socket, time; s = socket.create_server(('', 29500)); print(1, flush=True); time.sleep(60)"
