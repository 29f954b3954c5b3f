"""Launcher processes above a rank: if one of them has exited, the rank must end.

With DeepSpeed 0.19, the launcher on a host, `deepspeed.launcher.launch`, outlives the `deepspeed` command or the ssh
that started it, and its ranks outlive the launcher. torchrun's ranks outlive torchrun, too. Other parents are not
watched: a shell may be closed, and mpirun and srun end their processes themselves. This module does not import torch.
"""

import base64
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress

import psutil

DEEPSPEED_LAUNCHER = "deepspeed.launcher.launch"
WORLD_OPTION = "--world_info="
"""Option of the launcher with the slots of each host, in rank order."""


class Launcher:
    """Processes above a rank that must outlive it."""

    def __init__(self, rank: int, environment: Mapping[str, str]) -> None:
        """rank: its process id. environment: its variables, which identify the kind of launcher."""
        self._rank = rank
        self._deepspeed = "CROSS_RANK" in environment
        self._torchrun = "TORCHELASTIC_RUN_ID" in environment
        self._ancestors = self._find()
        # A launcher may have died before this line, even before the rank started.
        self._gone = self._deepspeed and (not self._ancestors or _is_orphaned(self._ancestors, environment))

    def is_gone(self) -> bool:
        """Return whether one of these processes has died."""
        with suppress(psutil.NoSuchProcess):  # the rank itself has ended
            self._gone = self._gone or self._find() != self._ancestors
        return self._gone

    def _find(self) -> list[int]:
        """Find the ids of these processes, nearest first; empty for other launchers, or if DeepSpeed's is gone."""
        if self._deepspeed:
            return _find_deepspeed_ancestors(self._rank)
        return [psutil.Process(self._rank).ppid()] if self._torchrun else []


def find_rank_hosts(rank: int) -> list[str]:
    """Read the host of each rank from the command line of DeepSpeed's launcher above a process.

    rank: process id. Returns host names in rank order; empty without DeepSpeed's launcher.
    """
    for process in _find_deepspeed_ancestors(rank):
        with suppress(psutil.Error, ValueError):
            for argument in psutil.Process(process).cmdline():
                if argument.startswith(WORLD_OPTION):
                    slots = json.loads(base64.urlsafe_b64decode(argument.removeprefix(WORLD_OPTION)))
                    return [host for host, numbers in slots.items() for _ in numbers]
    return []


def kill_ranks(ranks: Collection[int]) -> None:
    """Kill the given ranks that this process's parent launched on this host."""
    parent = psutil.Process().parent()
    for process in parent.children() if parent is not None else ():
        with suppress(psutil.Error):
            environment = process.environ()
            same_run = environment.get("MASTER_PORT") == os.environ["MASTER_PORT"]
            if same_run and environment.get("RANK") in map(str, ranks):
                process.kill()


def _find_deepspeed_ancestors(rank: int) -> list[int]:
    """Find the ids from the rank's parent up to the parent of DeepSpeed's launcher, which is `deepspeed` or sshd.

    A shell between sshd and the launcher also has the launcher in its command line. Empty if there is no launcher.
    """
    ancestors, launcher_seen, process = [], False, psutil.Process(rank)
    while True:
        ancestors.append(process.ppid())
        try:
            process = psutil.Process(ancestors[-1])
            is_launcher = any(DEEPSPEED_LAUNCHER in argument for argument in process.cmdline())
        except psutil.Error:  # ended, or hidden because it belongs to another user
            return ancestors if launcher_seen else []
        if launcher_seen and not is_launcher:
            return ancestors
        launcher_seen = launcher_seen or is_launcher


def _is_orphaned(ancestors: list[int], environment: Mapping[str, str]) -> bool:
    """Return whether the original parent of the second-last process died, so that the last one only adopted it.

    A process is in the group of its parent, unless it leads a group, as under sshd; but process 1 is not sshd.
    """
    process, parent = ancestors[-2:]
    if parent == 1 and "SSH_CONNECTION" in environment:
        return True
    try:
        return parent > 0 and os.getpgid(process) not in (process, os.getpgid(parent))
    except ProcessLookupError:
        return True
