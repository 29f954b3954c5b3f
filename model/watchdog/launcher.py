"""What launched a rank, and whether it is still there: without its launcher nobody would see or end the run any more.

Seen with DeepSpeed 0.19: its launcher of a machine, `deepspeed.launcher.launch`, outlives the `deepspeed` command or
the ssh that started it, and its ranks outlive it. torchrun's outlive it, too. Any other parent is no launcher: a shell
may be closed, and mpirun and srun end their processes themselves. Nothing of torch is imported here.
"""

import base64
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress

import psutil

DEEPSPEED_LAUNCHER = "deepspeed.launcher.launch"
WORLD = "--world_info="
"""The launcher's option that holds each host's slots, in the order of the ranks."""


class Launcher:
    """The processes above a rank that have to outlive it."""

    def __init__(self, rank: int, environment: Mapping[str, str]) -> None:
        """rank: its process id. environment: its variables, which say who launched it."""
        self._rank = rank
        self._deepspeed = "CROSS_RANK" in environment
        self._torchrun = "TORCHELASTIC_RUN_ID" in environment
        self._above = self._look()
        # One may have died before this look, even before the rank began.
        self._gone = self._deepspeed and (self._above is None or _is_adopted(self._above, environment))

    def is_gone(self) -> bool:
        """Whether one of them has died."""
        with suppress(psutil.NoSuchProcess):  # the rank itself has ended, which is no matter of its launcher
            self._gone = self._gone or self._look() != self._above
        return self._gone

    def _look(self) -> list[int] | None:
        """Ids of these processes, the nearest first. None: DeepSpeed's launcher is not there any more."""
        if self._deepspeed:
            return _up_to_deepspeed(self._rank)
        return [psutil.Process(self._rank).ppid()] if self._torchrun else []


def hosts_of_ranks(rank: int) -> list[str]:
    """The host of each rank, as DeepSpeed's launcher above this process knows them; empty without one."""
    for process in _up_to_deepspeed(rank) or ():
        with suppress(psutil.Error, ValueError):
            for word in psutil.Process(process).cmdline():
                if word.startswith(WORLD):
                    slots = json.loads(base64.urlsafe_b64decode(word.removeprefix(WORLD)))
                    return [host for host, numbers in slots.items() for _ in numbers]
    return []


def end_ranks(numbers: Collection[int]) -> None:
    """Kill those of these ranks that this process's parent has launched beside it."""
    parent, own = psutil.Process().parent(), os.environ
    for process in parent.children() if parent is not None else ():
        with suppress(psutil.Error):
            its = process.environ()
            if its.get("RANK") in map(str, numbers) and its.get("MASTER_PORT") == own["MASTER_PORT"]:
                process.kill()


def _up_to_deepspeed(rank: int) -> list[int] | None:
    """From the rank's parent up to what started DeepSpeed's launcher: `deepspeed`, or on a host reached by ssh, sshd.

    There, a shell may stand between; its command line names the launcher, too. None where there is no launcher.
    """
    above, found, process = [], False, psutil.Process(rank)
    while True:
        above.append(process.ppid())
        try:
            process = psutil.Process(above[-1])
            names_it = any(DEEPSPEED_LAUNCHER in word for word in process.cmdline())
        except psutil.Error:  # gone, or of another user and hidden
            return above if found else None
        if found and not names_it:
            return above
        found = found or names_it


def _is_adopted(above: list[int], environment: Mapping[str, str]) -> bool:
    """Whether the last but one has lost the parent that started it, and the last has but taken it in.

    A process belongs to its parent's group, unless it leads one of its own, as under sshd; but process 1 is no sshd.
    """
    process, parent = above[-2:]
    if parent == 1 and "SSH_CONNECTION" in environment:
        return True
    try:
        return parent > 0 and os.getpgid(process) not in (process, os.getpgid(parent))
    except ProcessLookupError:
        return True
