"""Command line of a training: the hosts on which DeepSpeed's launcher starts it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from model.cluster.hosts import read_hostfile

DEEPSPEED_HOSTFILE = Path("/job/hostfile")
"""The hostfile that DeepSpeed uses if none is given."""


@dataclass(frozen=True)
class Target:
    """Hosts on which a command's processes run beside this machine."""

    hosts: list[str]
    ssh_port: int | None


def target_of(command: Sequence[str]) -> Target:
    """Return the hosts on which a deepspeed command runs; none if it stays on this machine."""
    if not is_deepspeed(command):
        return Target([], None)
    options = _launcher_options(command)
    named = options.get("--hostfile") or options.get("-H")
    if "--no_ssh" in command or (named is None and not DEEPSPEED_HOSTFILE.exists()):
        return Target([], None)
    names = [host.name for host in read_hostfile(Path(named) if named else DEEPSPEED_HOSTFILE)]
    included, excluded = options.get("--include", options.get("-i")), options.get("--exclude", options.get("-e", ""))
    if included:
        names = [name for name in names if name in {part.split(":")[0] for part in included.split("@")}]
    names = [name for name in names if name not in excluded.split("@")]
    port = options.get("--ssh_port")
    return Target(names if len(names) > 1 else [], int(port) if port else None)


def is_deepspeed(command: Sequence[str]) -> bool:
    """Return whether a command is DeepSpeed's launcher."""
    return Path(command[0]).name in ("deepspeed", "ds")


def _launcher_options(command: Sequence[str]) -> dict[str, str]:
    """Parse the options of DeepSpeed's launcher, which precede the script."""
    options = {}
    for word, following in pairwise([*command[1:], ""]):
        if word.endswith(".py"):
            break
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            options[name] = value if equals else following
    return options
