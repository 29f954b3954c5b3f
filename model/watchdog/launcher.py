"""Launcher processes above a rank: without them, the run could not be seen or ended.

Seen with DeepSpeed 0.19: its launcher on a host, `deepspeed.launcher.launch`, outlives the `deepspeed` command or the
ssh that started it, and its ranks outlive it. So do torchrun's ranks. Any other parent is not watched: a shell may be
closed, and mpirun and srun end their processes themselves. Imports no torch.
"""

import base64
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress

import psutil

DEEPSPEED_LAUNCHER = "deepspeed.launcher.launch"
WORLD_OPTION = "--world_info="
"""The launcher's option with the slots of each host, in the order of the ranks."""


class Launcher:
    """The processes above a rank that must outlive it."""

    def __init__(self, rank: int, environment: Mapping[str, str]) -> None:
        """rank: its process id. environment: its variables, which tell the kind of launcher."""
        self._rank = rank
        self._deepspeed = "CROSS_RANK" in environment
        self._torchrun = "TORCHELASTIC_RUN_ID" in environment
        self._above = self._find()
        # One may have died before this moment, even before the rank started.
        self._gone = self._deepspeed and (not self._above or _is_adopted(self._above, environment))

    def is_gone(self) -> bool:
        """Return whether one of them has died."""
        with suppress(psutil.NoSuchProcess):  # the rank itself has ended
            self._gone = self._gone or self._find() != self._above
        return self._gone

    def _find(self) -> list[int]:
        """Return the ids of these processes, nearest first; empty for other launchers, or if DeepSpeed's is gone."""
        if self._deepspeed:
            return _up_to_deepspeed(self._rank)
        return [psutil.Process(self._rank).ppid()] if self._torchrun else []


def hosts_of_ranks(rank: int) -> list[str]:
    """Return the host of each rank from DeepSpeed's launcher above this process; empty without one."""
    for process in _up_to_deepspeed(rank):
        with suppress(psutil.Error, ValueError):
            for word in psutil.Process(process).cmdline():
                if word.startswith(WORLD_OPTION):
                    slots = json.loads(base64.urlsafe_b64decode(word.removeprefix(WORLD_OPTION)))
                    return [host for host, numbers in slots.items() for _ in numbers]
    return []


def kill_ranks(ranks: Collection[int]) -> None:
    """Kill these ranks as far as this process's parent has launched them beside it."""
    parent = psutil.Process().parent()
    for process in parent.children() if parent is not None else ():
        with suppress(psutil.Error):
            environment = process.environ()
            same_run = environment.get("MASTER_PORT") == os.environ["MASTER_PORT"]
            if same_run and environment.get("RANK") in map(str, ranks):
                process.kill()


def _up_to_deepspeed(rank: int) -> list[int]:
    """Return the ids from the rank's parent up to the parent of DeepSpeed's launcher: `deepspeed`, or sshd over ssh.

    With sshd a shell may be between; its command line names the launcher, too. Empty if there is no launcher.
    """
    above, found, process = [], False, psutil.Process(rank)
    while True:
        above.append(process.ppid())
        try:
            process = psutil.Process(above[-1])
            names_it = any(DEEPSPEED_LAUNCHER in word for word in process.cmdline())
        except psutil.Error:  # gone, or of another user and hidden
            return above if found else []
        if found and not names_it:
            return above
        found = found or names_it


def _is_adopted(above: list[int], environment: Mapping[str, str]) -> bool:
    """Return whether the parent that started the last process but one has died, and the last has only adopted it.

    A process is in its parent's group, unless it leads its own, as under sshd; but process 1 is no sshd.
    """
    process, parent = above[-2:]
    if parent == 1 and "SSH_CONNECTION" in environment:
        return True
    try:
        return parent > 0 and os.getpgid(process) not in (process, os.getpgid(parent))
    except ProcessLookupError:
        return True
