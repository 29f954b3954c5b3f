"""The machines of a hostfile, and commands on them by ssh."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.errors import UserError

LINE = re.compile(r"^(\S+)\s+slots=(\d+)")
"""A host in DeepSpeed's hostfile; what follows is ignored, as DeepSpeed does."""
KEEP_ALIVE = ("ServerAliveInterval=5", "ServerAliveCountMax=3")
"""With these, ssh ends when its host has been silent for 15 s; by default it waits for ever."""
SSH_OPTIONS = ("BatchMode=yes", "ConnectTimeout=5", *KEEP_ALIVE)
"""No question to a user who is not there, no waiting for a host that is not."""
TIMEOUT = 120
"""Seconds a command on a host may take, imports from a cold disk included."""
FAILED = 255
"""How ssh ends where it did not get to the command, and how we call a command that took too long."""

T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """One line of a hostfile. slots: processes it runs, one a GPU."""

    name: str
    slots: int


def read_hostfile(path: Path) -> list[Host]:
    """The hosts in their order; the first one runs rank 0. Raises UserError for what DeepSpeed would not take."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot read the hostfile: {error.strerror}") from None
    hosts: dict[str, Host] = {}
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        found = LINE.match(line)
        if found is None:
            raise UserError(f"{path}, line {number}: expected NAME slots=NUMBER, got {line!r}")
        if found[1] in hosts:
            raise UserError(f"{path}, line {number}: {found[1]} stands there twice; add its slots up in one line")
        hosts[found[1]] = Host(found[1], int(found[2]))
    if not hosts:
        raise UserError(f"{path}: no hosts; expected lines of NAME slots=NUMBER")
    return list(hosts.values())


def ssh(host: str, command: str, port: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a host to its end; code 255 where the host was not reached in time."""
    words = ["ssh", *(f"-o{option}" for option in SSH_OPTIONS), *(["-p", str(port)] if port else []), host, command]
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, FAILED, "", f"no end after {TIMEOUT} s")
    except FileNotFoundError:
        raise UserError("ssh is not installed here; DeepSpeed reaches the hosts of a hostfile by it") from None


def as_launched(module: str, *arguments: str) -> str:
    """A shell command that runs a module of ours just as DeepSpeed's launcher runs train.py on a host.

    That is: in this folder, by this Python, with this shell's variables that begin with PYTHON.
    """
    here = str(Path.cwd())
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    variables["PYTHONPATH"] = ":".join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"cd {shlex.quote(here)} && {exports} {shlex.join([sys.executable, '-m', module, *arguments])}"


def on_all(hosts: Sequence[T], work: Callable[[T], str]) -> list[str]:
    """`work` for every host at once; results in the order of the hosts."""
    with ThreadPoolExecutor(max_workers=max(len(hosts), 1)) as pool:
        return list(pool.map(work, hosts))


def check_environment_files() -> list[str]:
    """The .deepspeed_env files that DeepSpeed will read here. Raises UserError for a line that it would stumble on."""
    name = os.environ.get("DS_ENV_FILE", ".deepspeed_env")
    found = [path for path in dict.fromkeys((Path.home() / name, Path(name).absolute())) if path.is_file()]
    for path in found:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "=" not in line or line.lstrip().startswith("#"):
                raise UserError(
                    f"{path}, line {number}: expected NAME=VALUE, got {line!r}; DeepSpeed takes no comments and no "
                    "empty lines there"
                )
    return [str(path) for path in found]
