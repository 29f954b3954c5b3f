"""Checks of hosts before a training, for `promoter-bert doctor`."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from model.cluster.hosts import (
    FAILED,
    find_invalid_line,
    list_environment_files,
    make_remote_command,
    read_hostfile,
    run_on_all,
    ssh,
)
from model.config import Config
from model.distributed.network import is_reachable
from model.runs.fingerprint import FIX_BY_KIND, find_differences
from model.training.small_batch import FIX, describe_small_batch

CLOCK_TOLERANCE_S = 30.0
"""Largest accepted difference between the clocks of two hosts."""
DISK_MARGIN = 2.0
"""Free disk space that counts as enough, as a multiple of the estimated need."""
LOOPBACK = ("localhost", "127.0.0.1")
WITHOUT_SSH = "deepspeed --hostfile {hostfile} --no_ssh_check --master_addr 127.0.0.1 train.py needs no ssh"
"""Command for a hostfile of this machine only; DeepSpeed uses ssh for all hosts of a hostfile, even for localhost."""
SSH_SILENCE_S = 30
"""Time after which ssh should notice an unreachable host."""

Answers = dict[str, dict[str, Any]]
"""Results of probe.probe, by host."""
RunCommand = Callable[[str, str], "subprocess.CompletedProcess[str]"]
"""Function that runs a shell command on a host: (host, command) -> result."""


@dataclass(frozen=True)
class Finding:
    """Result of one check on one host. result: as text; fix: what to do, empty if the state is ok."""

    host: str
    check: str
    state: Literal["ok", "warning", "wrong"]
    result: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the values of --json; the key `found` is that of earlier versions."""
        return {"found" if name == "result" else name: value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class TrainingPlan:
    """The training whose hosts are checked. port, ssh_port: of the rendezvous, and of ssh (None: ssh's default)."""

    config: Config
    config_path: Path
    overrides: list[str]
    ds_config: Path
    port: int
    ssh_port: int | None


def check_hosts(hostfile: Path | None, plan: TrainingPlan) -> Iterator[Finding]:
    """Check the hosts of a hostfile, or this machine without one. Yields each finding as soon as it is known.

    Raises UserError if the hostfile cannot be read or is invalid.
    """
    return _check_here(plan) if hostfile is None else _check_hosts(hostfile, read_hostfile(hostfile), plan)


def format_finding(finding: Finding) -> str:
    """Format a finding as a line, and a second line with the fix if there is one."""
    state = {"ok": "ok     ", "warning": "warning", "wrong": "WRONG  "}[finding.state]
    line = f"{state} {finding.host}: {finding.check}: {finding.result}"
    return f"{line}\n        fix: {finding.fix}" if finding.fix else line


def make_finding(host: str, check: str, problem: str, ok: str, fix: str, warn: bool = False) -> Finding:
    """Make a finding with the text `problem`, or `ok` if that is empty. warn: whether training works nevertheless."""
    if not problem:
        return Finding(host, check, "ok", ok)
    return Finding(host, check, "warning" if warn else "wrong", problem, fix)


def _check_here(plan: TrainingPlan) -> Iterator[Finding]:
    this_host = socket.gethostname()
    answers = yield from _probe([this_host], plan, _run_here)
    if this_host in answers:
        yield from _check_first(this_host, answers[this_host], plan)
    yield from _check_gpus(answers, {this_host: 0}, plan)


def _check_hosts(hostfile: Path, slots: Mapping[str, int], plan: TrainingPlan) -> Iterator[Finding]:
    """Check hosts. slots: number of processes per host, in the order of the hostfile.

    A hostfile of this machine only is checked without ssh, as it can also train without ssh.
    """
    yield from _check_launching_machine(len(slots))
    is_alone = len(slots) == 1 and set(slots) <= set(LOOPBACK)
    reachable = []
    for host in slots:
        fix = f"{WITHOUT_SSH.format(hostfile=hostfile)}; or start sshd" if is_alone else _suggest_ssh(host)
        ssh_works = yield from _check_ssh(host, plan, fix)
        reachable += [host] if ssh_works or is_alone else []
    run = _run_here if is_alone else partial(ssh, port=plan.ssh_port)
    answers = yield from check_together(list(slots), reachable, plan, run)
    yield from _check_gpus(answers, slots, plan)


def check_together(
    hosts: Sequence[str], reachable: Sequence[str], plan: TrainingPlan, run: RunCommand
) -> Generator[Finding, None, Answers]:
    """Check the reachable ones of a training's hosts, the first of which has rank 0. Returns their answers."""
    answers = yield from _probe(reachable, plan, run)
    first = hosts[0]
    yield from _check_names(answers, len(hosts))
    if first in answers:
        yield from _check_first(first, answers[first], plan)
        yield from _check_same(first, answers)
        if len(answers) > 1 and not answers[first]["port_problem"]:
            yield from _check_connections(first, answers, plan, run)
    return answers


def _check_launching_machine(hosts: int) -> Iterator[Finding]:
    """Check the machine on which deepspeed will start. hosts: number of hosts."""
    this_host = socket.gethostname()
    if hosts > 1:
        problem = "" if shutil.which("pdsh") else "not installed"
        yield make_finding(this_host, "pdsh", problem, "installed", "apt-get install pdsh")
    files = list_environment_files()
    ok = f"from {', '.join(map(str, files))}" if files else "no .deepspeed_env"
    problem, fix = find_invalid_line(files)
    yield make_finding(this_host, "environment", problem, ok, fix)


def _suggest_ssh(host: str) -> str:
    """Suggest a fix for a host of several that ssh cannot reach."""
    if host in LOOPBACK:
        return "start sshd; DeepSpeed uses ssh for all hosts of a hostfile, even for localhost"
    return f"make `ssh {host} true` work without a password (ssh-copy-id {host}), and check that its sshd is running"


def _check_ssh(host: str, plan: TrainingPlan, fix: str) -> Generator[Finding, None, bool]:
    """Check ssh to a host. Returns whether it works."""
    problem = "not installed here (apt-get install openssh-client)"
    if shutil.which("ssh"):
        problem = _extract_error(ssh(host, "true", plan.ssh_port))
    yield make_finding(host, "ssh", problem, "without a password", fix)
    if not problem:
        fix = "add ServerAliveInterval 5 to ~/.ssh/config; promoter-bert relaunch sets it itself"
        yield make_finding(host, "ssh keep-alive", _check_keep_alive(host), "on", fix, warn=True)
    return not problem


def _check_keep_alive(host: str) -> str:
    """Describe how late this user's ssh, as pdsh runs it, notices an unreachable host; empty if early enough."""
    output = subprocess.run(["ssh", "-G", host], capture_output=True, text=True, check=False).stdout
    settings = dict(line.split(" ", 1) for line in output.splitlines() if " " in line)
    seconds = int(settings.get("serveraliveinterval", 0)) * int(settings.get("serveralivecountmax", 3))
    if 0 < seconds <= SSH_SILENCE_S:
        return ""
    return f"ssh {f'needs {seconds} s to notice' if seconds else 'never notices'} an unreachable host"


def _run_here(_host: str, command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


def _extract_error(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the last line that a failed command wrote to standard error; empty if it succeeded."""
    return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1] if done.returncode else ""


def _probe(hosts: Sequence[str], plan: TrainingPlan, run: RunCommand) -> Generator[Finding, None, Answers]:
    """Probe all hosts in parallel. Returns the answers of those that can run the project."""
    request: dict[str, Any] = {"config_path": str(plan.config_path), "overrides": plan.overrides}
    request |= {"ds_config": str(plan.ds_config), "port": plan.port}

    def query(host: str) -> tuple["subprocess.CompletedProcess[str]", float, float]:
        before = time.time()
        command = make_remote_command(
            "model.cluster.probe", "probe", json.dumps({**request, "first": host == hosts[0]})
        )
        return run(host, command), before, time.time()

    answers: Answers = {}
    for host, (done, before, after) in zip(hosts, run_on_all(hosts, query), strict=True):
        fix = f"put project, .venv and config file at the same path on that host: {Path.cwd()}"
        if done.returncode == FAILED:
            fix = "check that the host is not overloaded, then try again"
        yield make_finding(host, "project", _extract_error(done), f"runs in {Path.cwd()}", fix)
        if done.returncode == 0:
            answers[host] = answer = json.loads(done.stdout.splitlines()[-1])
            yield from _check_system(host, answer, max(before - answer["time"], answer["time"] - after, 0.0))
    return answers


def _check_system(host: str, answer: dict[str, Any], clock_offset_s: float) -> Iterator[Finding]:
    problem = f"differs by {clock_offset_s:,.0f} s from this machine" if clock_offset_s > CLOCK_TOLERANCE_S else ""
    fix = "synchronize it over the network: systemctl enable --now systemd-timesyncd"
    yield make_finding(host, "clock", problem, "synchronized", fix, warn=True)
    problem = "" if answer["pkill"] else "not installed"
    fix = "apt-get install procps; DeepSpeed ends processes with pkill"
    yield make_finding(host, "pkill", problem, "installed", fix, warn=True)


def _check_names(answers: Answers, hosts: int) -> Iterator[Finding]:
    for host, answer in answers.items():
        address = answer["own_address"]
        ok = f"{answer['host']} resolves to {address or 'no address'}"
        problem = f"{ok}; other hosts cannot reach this address" if hosts > 1 and not is_reachable(address) else ""
        fix = "train.py uses the route to the first host instead; for other programs, correct the name in /etc/hosts"
        yield make_finding(host, "own name", problem, ok, fix, warn=True)


def _check_first(first: str, answer: dict[str, Any], plan: TrainingPlan) -> Iterator[Finding]:
    """Check port, shards and disk space, which only the host of rank 0 needs."""
    problem = answer["port_problem"] and f"{plan.port}: {answer['port_problem']}"
    fix = "use another port if another training uses this one: deepspeed --master_port 29501 ..."
    yield make_finding(first, "port", problem, f"{plan.port} is free", fix)
    fix = "put the same shards into the same folder on every host"
    yield make_finding(first, "shards", answer["shards_problem"], "match the dataset", fix)
    free, needed = answer["free_bytes"], answer["needed_bytes"]
    amounts = f"{free / 1e9:,.2f} GB free in {answer['run_folder']}, the run needs about {needed / 1e9:,.2f} GB"
    problem = amounts if free < DISK_MARGIN * needed else ""
    if not problem and not answer["writable"]:
        problem = f"{answer['run_folder']}: not writable"
    warn = free >= needed and answer["writable"]
    yield make_finding(
        first, "disk", problem, amounts, "free disk space, or use a folder on another disk: run.path=...", warn
    )


def _check_same(first: str, answers: Answers) -> Iterator[Finding]:
    """Compare each host's shards, configuration and software with the first host's."""
    for host, answer in answers.items():
        by_kind = find_differences([(first, answers[first]["facts"]), (host, answer["facts"])])
        for kind, fix in FIX_BY_KIND.items():
            facts = answer["facts"][kind]
            ok = ", ".join(f"{name} {value}" for name, value in facts.items()) if kind != "config" else "equal"
            yield make_finding(host, f"same {kind}", "; ".join(by_kind.get(kind, [])), ok, fix)


def _check_connections(first: str, answers: Answers, plan: TrainingPlan, run: RunCommand) -> Iterator[Finding]:
    """Check that every host can connect to the first host's port, and sees a file of the first in the run folder."""
    address, others = answers[first]["address"], [host for host in answers if host != first]
    folder = plan.config.run.directory.parent.absolute()
    common = {"port": plan.port, "marker": str(folder / f".doctor-{uuid4().hex}")}

    def query(host: str) -> dict[str, Any]:
        name, own = ("listen", {"connections": len(others)}) if host == first else ("connect", {"address": address})
        done = run(host, make_remote_command("model.cluster.probe", name, json.dumps({**common, **own})))
        if done.returncode:
            return {"problem": _extract_error(done)}
        return dict(json.loads(done.stdout.splitlines()[-1]))

    target = f"{first} ({address}), port {plan.port}"
    for host, result in zip(others, run_on_all([first, *others], query)[1:], strict=True):
        problem = result["problem"] and f"cannot reach {target}: {result['problem']}"
        fix = "open all ports between the hosts, as training also uses other ports"
        yield make_finding(host, "way", problem, f"reaches {target}", fix)
        if not problem:
            problem = "" if result["shared"] else f"{folder} is not the same folder as on {first}"
            fix = "use a folder on a shared disk (run.path=...), as every host reads its checkpoints"
            yield make_finding(host, "shared run folder", problem, str(folder), fix)


def _check_gpus(answers: Answers, slots: Mapping[str, int], plan: TrainingPlan) -> Iterator[Finding]:
    """Compare the GPUs of each host with its slots; 0 slots: not known."""
    kinds = {name for answer in answers.values() for name in answer["gpus"]}
    for host, answer in answers.items():
        gpus, processes, cores = answer["gpus"], slots[host], answer["cores"]
        ok = f"{len(gpus)} x {gpus[0]}" if gpus else f"none: training on {cores} CPU cores in float32"
        problem, warn = "", True
        if kinds and processes > len(gpus):
            problem, warn = f"{len(gpus)}, but slots={processes}", False
        elif len(gpus) > processes > 0:
            problem = f"{len(gpus)}, but slots={processes}: the others stay idle"
        elif len(kinds) > 1:
            problem = f"{', '.join(sorted(set(gpus)))}: the kinds differ, and the slowest limits the speed"
        elif not kinds and processes > (cores or 1):
            problem = f"none, but slots={processes} on {cores} CPU cores"
        yield make_finding(host, "GPUs", problem, ok, "set slots in the hostfile to the number of GPUs per host", warn)
    if kinds:
        total = sum(slots[host] or len(answer["gpus"]) for host, answer in answers.items())
        for name in plan.config.stages("both"):
            problem = describe_small_batch(plan.config, name, total)
            ok = f"{name}.global_batch={plan.config.stage(name).global_batch} is enough for {total} GPUs"
            yield make_finding(next(iter(answers)), "batch", problem, ok, FIX, warn=True)
