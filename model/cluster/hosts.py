"""Hosts of a hostfile or a deepspeed command, and commands on them over ssh."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TypeVar

from pipeline.errors import UserError
from pipeline.paths import looked_in

LINE = re.compile(r"^(\S+)\s+slots=(\d+)")
"""A host in DeepSpeed's hostfile. As in DeepSpeed, the rest of the line is ignored."""
DEEPSPEED_HOSTFILE = Path("/job/hostfile")
"""The hostfile that DeepSpeed uses by default."""
KEEP_ALIVE = ("ServerAliveInterval=5", "ServerAliveCountMax=3")
"""Options with which ssh ends after 15 s without an answer; by default it waits forever."""
SSH_OPTIONS = ("BatchMode=yes", "ConnectTimeout=5", *KEEP_ALIVE)
"""Options for unattended use: no prompts, and no long wait for an unreachable host."""
TIMEOUT_S = 120
"""Time limit of a command on a host, imports from a cold disk included."""
FAILED = 255
"""Exit code of ssh if it could not start the command; also used for a command that timed out."""

T = TypeVar("T")
R = TypeVar("R")


def read_hostfile(path: Path) -> dict[str, int]:
    """Read the slots (number of processes, one per GPU) of each host. The first host runs rank 0.

    Raises UserError if the file cannot be read, or has lines that DeepSpeed rejects.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot read the hostfile: {error.strerror}{looked_in(path)}") from None
    hosts: dict[str, int] = {}
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.match(line)
        if match is None:
            raise UserError(f"{path}, line {number}: expected NAME slots=NUMBER, got {line!r}")
        name, slots = match.groups()
        if name in hosts:
            raise UserError(
                f"{path}, line {number}: duplicate host {name}; fix: write one line per host, with the sum of its slots"
            )
        hosts[name] = int(slots)
    if not hosts:
        raise UserError(f"{path}: no hosts; expected lines of NAME slots=NUMBER")
    return hosts


@dataclass(frozen=True)
class Target:
    """Other hosts on which the processes of a command run. by_deepspeed: whether DeepSpeed launches them."""

    by_deepspeed: bool
    hosts: list[str]
    ssh_port: int | None


def parse_target(command: Sequence[str]) -> Target:
    """Parse the hosts on which a deepspeed command runs; none if it runs on this machine only.

    Raises UserError if the hostfile is invalid.
    """
    if Path(command[0]).name not in ("deepspeed", "ds"):
        return Target(False, [], None)
    options = _parse_launcher_options(command)
    hostfile = options.get("--hostfile") or options.get("-H")
    if "--no_ssh" in options or (hostfile is None and not DEEPSPEED_HOSTFILE.exists()):
        return Target(True, [], None)
    names = list(read_hostfile(Path(hostfile) if hostfile else DEEPSPEED_HOSTFILE))
    include, exclude = options.get("--include", options.get("-i")), options.get("--exclude", options.get("-e", ""))
    if include:
        names = [name for name in names if name in {part.split(":")[0] for part in include.split("@")}]
    names = [name for name in names if name not in exclude.split("@")]
    port = options.get("--ssh_port")
    return Target(True, names if len(names) > 1 else [], int(port) if port else None)


def _parse_launcher_options(command: Sequence[str]) -> dict[str, str]:
    """Parse the options of DeepSpeed's launcher, which precede the script."""
    options = {}
    for argument, following in pairwise([*takewhile(lambda argument: not argument.endswith(".py"), command[1:]), ""]):
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            options[name] = value if equals else following
    return options


def ssh(host: str, command: str, port: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a host and wait for its end. The exit code is 255 if the host is unreachable or too slow.

    Raises UserError if ssh is not installed.
    """
    command_line = [
        "ssh",
        *(f"-o{option}" for option in SSH_OPTIONS),
        *(["-p", str(port)] if port else []),
        host,
        command,
    ]
    try:
        return subprocess.run(
            command_line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command_line, FAILED, "", f"timed out after {TIMEOUT_S} s")
    except FileNotFoundError:
        raise UserError(
            "ssh: not installed here, and DeepSpeed needs it; fix: apt-get install openssh-client"
        ) from None


def make_remote_command(module: str, *arguments: str) -> str:
    """Make the shell command that runs a module of this project on a host, as DeepSpeed's launcher runs train.py.

    It uses this folder, this Python interpreter, and this shell's environment variables PYTHON*.
    """
    here = str(Path.cwd())
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    variables["PYTHONPATH"] = ":".join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"cd {shlex.quote(here)} && {exports} {shlex.join([sys.executable, '-m', module, *arguments])}"


def run_on_all(hosts: Sequence[T], work: Callable[[T], R]) -> list[R]:
    """Run `work` for all hosts in parallel. Returns the results in the order of the hosts."""
    with ThreadPoolExecutor(max_workers=max(len(hosts), 1)) as pool:
        return list(pool.map(work, hosts))


def check_environment_files() -> list[str]:
    """List the .deepspeed_env files that DeepSpeed reads here. Raises UserError for a line that DeepSpeed rejects."""
    paths = list_environment_files()
    problem, fix = find_invalid_line(paths)
    if problem:
        raise UserError(f"{problem}; fix: {fix}")
    return [str(path) for path in paths]


def list_environment_files() -> list[Path]:
    """List the .deepspeed_env files that DeepSpeed reads on this machine."""
    name = os.environ.get("DS_ENV_FILE", ".deepspeed_env")
    return [path for path in dict.fromkeys((Path.home() / name, Path(name).absolute())) if path.is_file()]


def find_invalid_line(paths: Sequence[Path]) -> tuple[str, str]:
    """Find the first line of the files that DeepSpeed rejects. Returns problem and fix; both are empty without one."""
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "=" not in line or line.lstrip().startswith("#"):
                problem = f"{path}, line {number}: expected NAME=VALUE, got {line!r}"
                return f"{problem}; DeepSpeed rejects comments and empty lines", f"remove line {number} of {path}"
    return "", ""
