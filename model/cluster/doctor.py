"""Will a training run on these hosts? Each thing that has stopped one before, looked at in advance."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from model.cluster.hosts import FAILED, Host, as_launched, check_environment_files, on_all, read_hostfile, ssh
from model.config import Config
from model.distributed.network import is_reachable
from model.runs.fingerprint import FIX_BY_KIND, differences
from pipeline.errors import UserError

CLOCK = 30.0
"""Seconds that two clocks may differ before it is said."""
ROOM = 2.0
"""Times the needed disk space that is called enough."""


SSH_WAITS = 30
"""Seconds of silence in which ssh should notice that a host is away."""


@dataclass(frozen=True)
class Finding:
    """One check on one host. fix: what to do, empty where all is well."""

    host: str
    check: str
    state: Literal["ok", "warning", "wrong"]
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Asked:
    """What the training would be started with."""

    config: Config
    config_path: Path
    overrides: list[str]
    ds_config: Path
    port: int
    ssh_port: int | None


@dataclass
class _Report:
    show: Callable[[Finding], None]
    findings: list[Finding] = field(default_factory=list)

    def add(self, host: str, check: str, problem: str, good: str, fix: str, warn: bool = False) -> bool:
        """Note a check; `problem` is empty where all is well. Returns whether it is."""
        state: Literal["ok", "warning", "wrong"] = "ok" if not problem else "warning" if warn else "wrong"
        self.findings.append(Finding(host, check, state, problem or good, fix if problem else ""))
        self.show(self.findings[-1])
        return not problem


def examine(hostfile: Path | None, asked: Asked, show: Callable[[Finding], None]) -> list[Finding]:
    """Check the hosts of a hostfile, or without one this machine alone. `show` is called with each finding."""
    report, here = _Report(show), socket.gethostname()
    if hostfile is None:
        answers = _probe([Host(here, 0)], asked, report, _locally)
        if answers:
            _check_first(here, answers[here], asked, report)
            _check_gpus(answers, [], report)
        return report.findings
    hosts = read_hostfile(hostfile)
    _check_this_machine(here, hosts, report)
    reached = [host for host in hosts if _check_ssh(host, asked, report)]

    def by_ssh(host: str, command: str) -> subprocess.CompletedProcess[str]:
        return ssh(host, command, asked.ssh_port)

    answers = _probe(reached, asked, report, by_ssh)
    first = hosts[0].name
    _check_names(answers, len(hosts), report)
    if first in answers:
        _check_first(first, answers[first], asked, report)
        _check_same(first, answers, report)
        if len(answers) > 1 and not answers[first]["port_problem"]:
            _check_ways(first, answers, asked, report, by_ssh)
    _check_gpus(answers, hosts, report)
    return report.findings


def _check_this_machine(here: str, hosts: Sequence[Host], report: _Report) -> None:
    if len(hosts) > 1:
        problem = "" if shutil.which("pdsh") else "not installed"
        report.add(here, "pdsh", problem, "installed", "install it here: apt-get install pdsh")
    try:
        files = check_environment_files()
        report.add(here, "environment", "", f"from {', '.join(files)}" if files else "no .deepspeed_env", "")
    except UserError as error:
        report.add(here, "environment", str(error), "", "take that line out")


def _check_ssh(host: Host, asked: Asked, report: _Report) -> bool:
    done = ssh(host.name, "true", asked.ssh_port)
    problem = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1] if done.returncode else ""
    if host.name in ("localhost", "127.0.0.1"):
        fix = "DeepSpeed asks the hosts of a hostfile by ssh, localhost too: start an sshd, or leave out --hostfile"
    else:
        fix = f"this must work without a password: ssh {host.name} true (ssh-copy-id {host.name}; is its sshd running?)"
    if not report.add(host.name, "ssh", problem, "without a password", fix):
        return False
    problem = _waits_long(host.name)
    fix = "put into ~/.ssh/config: ServerAliveInterval 5 (promoter-bert relaunch does so by itself)"
    report.add(host.name, "ssh keep-alive", problem, "on", fix, warn=True)
    return True


def _waits_long(host: str) -> str:
    """Whether this user's ssh, as pdsh runs it, would be long in noticing that a host is away; empty if not."""
    said = subprocess.run(["ssh", "-G", host], capture_output=True, text=True, check=False).stdout
    settings = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    seconds = int(settings.get("serveraliveinterval", 0)) * int(settings.get("serveralivecountmax", 3))
    if 0 < seconds <= SSH_WAITS:
        return ""
    return f"ssh would wait {f'{seconds} s' if seconds else 'for ever'} for a host that went away"


def _locally(_host: str, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


def _probe(
    hosts: Sequence[Host],
    asked: Asked,
    report: _Report,
    run: Callable[[str, str], subprocess.CompletedProcess[str]],
) -> dict[str, dict[str, Any]]:
    """Ask every host at once; those that cannot answer are findings."""
    request = {
        "config_path": str(asked.config_path),
        "overrides": asked.overrides,
        "ds_config": str(asked.ds_config),
        "port": asked.port,
    }

    def ask(host: Host) -> str:
        before = time.time()
        command = as_launched("model.cluster.probe", "probe", json.dumps({**request, "first": host is hosts[0]}))
        done = run(host.name, command)
        return json.dumps([done.returncode, done.stdout, done.stderr, before, time.time()])

    answers = {}
    for host, said in zip(hosts, on_all(hosts, ask), strict=True):
        code, output, errors, before, after = json.loads(said)
        last = (errors.strip() or f"exit code {code}").splitlines()[-1]
        fix = f"project, .venv and config must be at the same path there: {Path.cwd()}"
        if code == FAILED:
            fix = "see that the host is not overloaded, then ask again"
        if not report.add(host.name, "project", last if code else "", f"runs in {Path.cwd()}", fix):
            continue
        answers[host.name] = answer = json.loads(output.splitlines()[-1])
        off = max(before - answer["time"], answer["time"] - after, 0.0)
        report.add(
            host.name, "clock", f"{off:,.0f} s off this machine's" if off > CLOCK else "", "right",
            "set it by the network (systemctl enable --now systemd-timesyncd)", warn=True,
        )  # fmt: skip
        report.add(
            host.name, "pkill", "" if answer["pkill"] else "not installed", "installed",
            "install procps: DeepSpeed ends its processes on a host by it", warn=True,
        )  # fmt: skip
    return answers


def _check_names(answers: dict[str, dict[str, Any]], hosts: int, report: _Report) -> None:
    for host, answer in answers.items():
        address = answer["own_address"]
        trapped = hosts > 1 and not is_reachable(address)
        points = f"{answer['host']} points to {address or 'nothing'}"
        report.add(
            host, "own name", f"{points}, where no other host reaches it" if trapped else "", points,
            "train.py goes by the way to the first host instead; to mend it for others, too, give the name its real "
            "address in /etc/hosts", warn=True,
        )  # fmt: skip


def _check_first(first: str, answer: dict[str, Any], asked: Asked, report: _Report) -> None:
    report.add(
        first, "port", answer["port_problem"] and f"{asked.port}: {answer['port_problem']}", f"{asked.port} is free",
        "another training? give this one another port: deepspeed --master_port 29501 ...",
    )  # fmt: skip
    report.add(
        first, "shards", answer["shards_problem"], "those of the dataset",
        "the same ones must be on every host, in the same folder",
    )  # fmt: skip
    free, needed = answer["free_bytes"], answer["needed_bytes"]
    amounts = f"{free / 1e9:,.2f} GB free in {answer['run_folder']}, the run takes about {needed / 1e9:,.2f} GB"
    problem = amounts if free < ROOM * needed else "" if answer["writable"] else f"{answer['run_folder']}: not writable"
    report.add(
        first, "disk", problem, amounts, "make room, or put the run elsewhere: run.path=...", warn=free >= needed
        and bool(answer["writable"]),
    )  # fmt: skip


def _check_same(first: str, answers: dict[str, dict[str, Any]], report: _Report) -> None:
    for host, answer in answers.items():
        found = differences([(first, answers[first]["facts"]), (host, answer["facts"])])
        for kind, fix in FIX_BY_KIND.items():
            said = "; ".join(str(each) for each in found if each.kind == kind)
            facts = answer["facts"][kind]
            good = ", ".join(f"{name} {value}" for name, value in facts.items()) if kind != "config" else "the same"
            report.add(host, f"same {kind}", said, good, fix)


def _check_ways(
    first: str,
    answers: dict[str, dict[str, Any]],
    asked: Asked,
    report: _Report,
    run: Callable[[str, str], subprocess.CompletedProcess[str]],
) -> None:
    """Let every host connect to the first one's port, and look for a file that it makes in the run's folder."""
    address, others = answers[first]["address"], [host for host in answers if host != first]
    marker = str(asked.config.run.directory.parent.absolute() / f".doctor-{uuid4().hex}")

    def ask(host: str) -> str:
        listening = {"port": asked.port, "guests": len(others), "marker": marker}
        reaching = {"address": address, "port": asked.port, "marker": marker}
        name, arguments = ("listen", listening) if host == first else ("reach", reaching)
        done = run(host, as_launched("model.cluster.probe", name, json.dumps(arguments)))
        problem = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        failed = json.dumps({"problem": problem, "shared": None})
        return done.stdout.splitlines()[-1] if done.returncode == 0 else failed

    said = dict(zip([first, *others], on_all([first, *others], ask), strict=True))
    for host in others:
        answer = json.loads(said[host])
        way = f"{first} ({address}), port {asked.port}"
        fix = "open the ports between the hosts (training takes others than this one, too)"
        if not report.add(host, "way", answer["problem"] and f"{way}: {answer['problem']}", f"reaches {way}", fix):
            continue
        folder = Path(marker).parent
        report.add(
            host, "shared run folder", "" if answer["shared"] else f"{folder} is not the same one as on {first}",
            str(folder), "put the run on a disk that all hosts share (run.path=...): each reads its checkpoints there",
        )  # fmt: skip


def _check_gpus(answers: dict[str, dict[str, Any]], hosts: Sequence[Host], report: _Report) -> None:
    slots = {host.name: host.slots for host in hosts}
    kinds = {name for answer in answers.values() for name in answer["gpus"]}
    some = any(answer["gpus"] for answer in answers.values())
    for host, answer in answers.items():
        gpus, wanted = answer["gpus"], slots.get(host, 0)
        good = f"{len(gpus)} x {gpus[0]}" if gpus else f"none: {answer['cores']} CPU cores train, in float32"
        problem, warn = "", False
        if some and wanted > len(gpus):
            problem = f"{len(gpus)}, but slots={wanted}"
        elif len(gpus) > wanted > 0:
            problem, warn = f"{len(gpus)}, but slots={wanted}: the others stand idle", True
        elif len(kinds) > 1:
            problem, warn = f"{', '.join(sorted(set(gpus)))}: hosts differ, the slowest sets the pace", True
        elif not some and wanted > (answer["cores"] or 1):
            problem, warn = f"none, and slots={wanted} processes on {answer['cores']} cores", True
        report.add(host, "GPUs", problem, good, "set slots in the hostfile to the GPUs of each host", warn=warn)


def as_line(finding: Finding) -> str:
    """One line for a person, and one on what to do."""
    mark = {"ok": "ok     ", "warning": "warning", "wrong": "WRONG  "}[finding.state]
    line = f"{mark} {finding.host}: {finding.check}: {finding.found}"
    return f"{line}\n        -> {finding.fix}" if finding.fix else line
