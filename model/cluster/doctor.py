"""Checks of hosts before a training."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from model.cluster.hosts import FAILED, as_launched, check_environment_files, on_all, read_hostfile, ssh
from model.config import Config
from model.distributed.network import is_reachable
from model.runs.fingerprint import FIX_BY_KIND, find_differences
from pipeline.errors import UserError

CLOCK_TOLERANCE_S = 30.0
DISK_MARGIN = 2.0
"""Free disk space that counts as enough, relative to the estimated need."""
SSH_SILENCE_S = 30
"""Silence after which ssh should notice an unreachable host."""

Answers = dict[str, dict[str, Any]]
"""Results of probe.py by host."""
Run = Callable[[str, str], "subprocess.CompletedProcess[str]"]
"""Run a shell command on a host."""


@dataclass(frozen=True)
class Finding:
    """Result of one check on one host. fix: what to do, empty if all is well."""

    host: str
    check: str
    state: Literal["ok", "warning", "wrong"]
    found: str
    fix: str = ""


@dataclass(frozen=True)
class TrainingPlan:
    """The training that is to be started."""

    config: Config
    config_path: Path
    overrides: list[str]
    ds_config: Path
    port: int
    ssh_port: int | None


def examine(hostfile: Path | None, plan: TrainingPlan) -> Iterator[Finding]:
    """Check the hosts of a hostfile, or without one this machine alone; each finding as soon as it is known."""
    return _check_here(plan) if hostfile is None else _check_hosts(read_hostfile(hostfile), plan)


def as_line(finding: Finding) -> str:
    """Format a finding: one line, and one with the fix."""
    state = {"ok": "ok     ", "warning": "warning", "wrong": "WRONG  "}[finding.state]
    line = f"{state} {finding.host}: {finding.check}: {finding.found}"
    return f"{line}\n        -> {finding.fix}" if finding.fix else line


def _finding(host: str, check: str, problem: str, good: str, fix: str, warn: bool = False) -> Finding:
    """Make a finding; `problem` is empty if all is well, `warn` tells that training works all the same."""
    if not problem:
        return Finding(host, check, "ok", good)
    return Finding(host, check, "warning" if warn else "wrong", problem, fix)


def _check_here(plan: TrainingPlan) -> Iterator[Finding]:
    here = socket.gethostname()
    answers = yield from _probe([here], plan, _run_here)
    if here in answers:
        yield from _check_first(here, answers[here], plan)
    yield from _check_gpus(answers, {here: 0})


def _check_hosts(slots: Mapping[str, int], plan: TrainingPlan) -> Iterator[Finding]:
    """Check hosts. slots: number of processes of each, in the order of the hostfile."""
    yield from _check_launching_machine(len(slots))
    reached = []
    for host in slots:
        answers_ssh = yield from _check_ssh(host, plan)
        reached += [host] if answers_ssh else []
    run = partial(ssh, port=plan.ssh_port)
    answers = yield from _probe(reached, plan, run)
    first = next(iter(slots))
    yield from _check_names(answers, len(slots))
    if first in answers:
        yield from _check_first(first, answers[first], plan)
        yield from _check_same(first, answers)
        if len(answers) > 1 and not answers[first]["port_problem"]:
            yield from _check_connections(first, answers, plan, run)
    yield from _check_gpus(answers, slots)


def _check_launching_machine(hosts: int) -> Iterator[Finding]:
    here = socket.gethostname()
    if hosts > 1:
        problem = "" if shutil.which("pdsh") else "not installed"
        yield _finding(here, "pdsh", problem, "installed", "install it here: apt-get install pdsh")
    problem, files = "", []
    try:
        files = check_environment_files()
    except UserError as error:
        problem = str(error)
    good = f"from {', '.join(files)}" if files else "no .deepspeed_env"
    yield _finding(here, "environment", problem, good, "remove that line")


def _check_ssh(host: str, plan: TrainingPlan) -> Generator[Finding, None, bool]:
    """Check ssh to a host. Returns whether it works."""
    problem = _error_of(ssh(host, "true", plan.ssh_port))
    fix = f"this must work without a password: ssh {host} true (ssh-copy-id {host}; is its sshd running?)"
    if host in ("localhost", "127.0.0.1"):
        fix = "DeepSpeed uses ssh for all hosts of a hostfile, even localhost: start sshd, or omit --hostfile"
    yield _finding(host, "ssh", problem, "without a password", fix)
    if not problem:
        fix = "add to ~/.ssh/config: ServerAliveInterval 5 (promoter-bert relaunch does so by itself)"
        yield _finding(host, "ssh keep-alive", _keep_alive_problem(host), "on", fix, warn=True)
    return not problem


def _keep_alive_problem(host: str) -> str:
    """Check how fast this user's ssh, as pdsh runs it, notices an unreachable host; empty if fast enough."""
    output = subprocess.run(["ssh", "-G", host], capture_output=True, text=True, check=False).stdout
    settings = dict(line.split(" ", 1) for line in output.splitlines() if " " in line)
    seconds = int(settings.get("serveraliveinterval", 0)) * int(settings.get("serveralivecountmax", 3))
    if 0 < seconds <= SSH_SILENCE_S:
        return ""
    return f"ssh would wait {f'{seconds} s' if seconds else 'for ever'} for an unreachable host"


def _run_here(_host: str, command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


def _error_of(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the last line of a failed command's errors; empty if it succeeded."""
    return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1] if done.returncode else ""


def _probe(hosts: Sequence[str], plan: TrainingPlan, run: Run) -> Generator[Finding, None, Answers]:
    """Probe all hosts in parallel. Returns the answers of those that can run the project."""
    request: dict[str, Any] = {"config_path": str(plan.config_path), "overrides": plan.overrides}
    request |= {"ds_config": str(plan.ds_config), "port": plan.port}

    def query(host: str) -> tuple["subprocess.CompletedProcess[str]", float, float]:
        before = time.time()
        command = as_launched("model.cluster.probe", "probe", json.dumps({**request, "first": host == hosts[0]}))
        return run(host, command), before, time.time()

    answers: Answers = {}
    for host, (done, before, after) in zip(hosts, on_all(hosts, query), strict=True):
        fix = f"project, .venv and config must be at the same path there: {Path.cwd()}"
        if done.returncode == FAILED:
            fix = "check that the host is not overloaded, then try again"
        yield _finding(host, "project", _error_of(done), f"runs in {Path.cwd()}", fix)
        if done.returncode == 0:
            answers[host] = answer = json.loads(done.stdout.splitlines()[-1])
            yield from _check_system(host, answer, max(before - answer["time"], answer["time"] - after, 0.0))
    return answers


def _check_system(host: str, answer: dict[str, Any], clock_offset_s: float) -> Iterator[Finding]:
    problem = f"{clock_offset_s:,.0f} s off this machine's" if clock_offset_s > CLOCK_TOLERANCE_S else ""
    fix = "synchronize it over the network (systemctl enable --now systemd-timesyncd)"
    yield _finding(host, "clock", problem, "right", fix, warn=True)
    problem = "" if answer["pkill"] else "not installed"
    fix = "install procps: DeepSpeed ends its processes on a host with pkill"
    yield _finding(host, "pkill", problem, "installed", fix, warn=True)


def _check_names(answers: Answers, hosts: int) -> Iterator[Finding]:
    for host, answer in answers.items():
        address = answer["own_address"]
        good = f"{answer['host']} resolves to {address or 'nothing'}"
        problem = f"{good}, where no other host reaches it" if hosts > 1 and not is_reachable(address) else ""
        fix = "train.py uses the route to the first host instead; for other programs, correct the name in /etc/hosts"
        yield _finding(host, "own name", problem, good, fix, warn=True)


def _check_first(first: str, answer: dict[str, Any], plan: TrainingPlan) -> Iterator[Finding]:
    """Check what only the host of rank 0 needs."""
    problem = answer["port_problem"] and f"{plan.port}: {answer['port_problem']}"
    fix = "another training? choose another port: deepspeed --master_port 29501 ..."
    yield _finding(first, "port", problem, f"{plan.port} is free", fix)
    fix = "every host needs the same ones in the same folder"
    yield _finding(first, "shards", answer["shards_problem"], "those of the dataset", fix)
    free, needed = answer["free_bytes"], answer["needed_bytes"]
    amounts = f"{free / 1e9:,.2f} GB free in {answer['run_folder']}, the run takes about {needed / 1e9:,.2f} GB"
    problem = amounts if free < DISK_MARGIN * needed else ""
    if not problem and not answer["writable"]:
        problem = f"{answer['run_folder']}: not writable"
    warn = free >= needed and answer["writable"]
    yield _finding(first, "disk", problem, amounts, "make room, or put the run elsewhere: run.path=...", warn)


def _check_same(first: str, answers: Answers) -> Iterator[Finding]:
    """Compare each host's shards, configuration and software with the first host's."""
    for host, answer in answers.items():
        by_kind = find_differences([(first, answers[first]["facts"]), (host, answer["facts"])])
        for kind, fix in FIX_BY_KIND.items():
            facts = answer["facts"][kind]
            good = ", ".join(f"{name} {value}" for name, value in facts.items()) if kind != "config" else "the same"
            yield _finding(host, f"same {kind}", "; ".join(by_kind.get(kind, [])), good, fix)


def _check_connections(first: str, answers: Answers, plan: TrainingPlan, run: Run) -> Iterator[Finding]:
    """Let every host connect to the first one's port, and look for a file that the first creates in the run folder."""
    address, others = answers[first]["address"], [host for host in answers if host != first]
    folder = plan.config.run.directory.parent.absolute()
    common = {"port": plan.port, "marker": str(folder / f".doctor-{uuid4().hex}")}

    def query(host: str) -> dict[str, Any]:
        name, own = ("listen", {"guests": len(others)}) if host == first else ("reach", {"address": address})
        done = run(host, as_launched("model.cluster.probe", name, json.dumps({**common, **own})))
        return {"problem": _error_of(done)} if done.returncode else dict(json.loads(done.stdout.splitlines()[-1]))

    way = f"{first} ({address}), port {plan.port}"
    for host, result in zip(others, on_all([first, *others], query)[1:], strict=True):
        problem = result["problem"] and f"{way}: {result['problem']}"
        fix = "open the ports between the hosts (training uses others than this one, too)"
        yield _finding(host, "way", problem, f"reaches {way}", fix)
        if not problem:
            problem = "" if result["shared"] else f"{folder} is not the same one as on {first}"
            fix = "put the run on a disk that all hosts share (run.path=...): each host reads its checkpoints there"
            yield _finding(host, "shared run folder", problem, str(folder), fix)


def _check_gpus(answers: Answers, slots: Mapping[str, int]) -> Iterator[Finding]:
    kinds = {name for answer in answers.values() for name in answer["gpus"]}
    for host, answer in answers.items():
        gpus, wanted, cores = answer["gpus"], slots[host], answer["cores"]
        good = f"{len(gpus)} x {gpus[0]}" if gpus else f"none: training on {cores} CPU cores in float32"
        problem, warn = "", True
        if kinds and wanted > len(gpus):
            problem, warn = f"{len(gpus)}, but slots={wanted}", False
        elif len(gpus) > wanted > 0:
            problem = f"{len(gpus)}, but slots={wanted}: the others are idle"
        elif len(kinds) > 1:
            problem = f"{', '.join(sorted(set(gpus)))}: hosts differ, the slowest sets the pace"
        elif not kinds and wanted > (cores or 1):
            problem = f"none, and slots={wanted} processes on {cores} cores"
        yield _finding(host, "GPUs", problem, good, "set slots in the hostfile to the GPUs of each host", warn)
