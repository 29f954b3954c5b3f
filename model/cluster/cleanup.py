"""Inspect or end the processes of one launch on this host, found by its id in their environment.

relaunch runs this module on every host over ssh.
"""

import json
import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import psutil

from model.runs.status import LAUNCH, State, launch_folder, read_status
from pipeline.errors import UserError

KILL_TIMEOUT_S = 30


@dataclass
class Remains:
    """Remains of a launch on a host, in plain values.

    running: number of processes. killed: command lines. states: the last one of each rank that has recorded one.
    problem: why the host could not be queried.
    """

    running: int = 0
    killed: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Whether the host is unreachable, or runs nothing of the launch any more without having finished it."""
        return bool(self.problem) or (not self.running and set(self.states) != {State.FINISHED})


def find_processes(launch: str) -> list[psutil.Process]:
    """Find this user's living processes that have the launch id in their environment, this process excepted."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(LAUNCH) == launch:
                found.append(process)
    return found


def kill_processes(launch: str, grace_s: float) -> list[str]:
    """Give the processes of a launch `grace_s` seconds to end, then kill them. Returns the killed command lines.

    No process is left afterwards. Raises UserError if one cannot be killed.
    """
    psutil.wait_procs(find_processes(launch), timeout=grace_s)
    killed: dict[int, str] = {}
    end = time.monotonic() + KILL_TIMEOUT_S
    # Another search finds processes that the one before missed, as they had just been started.
    while left := find_processes(launch):
        if time.monotonic() > end:
            raise UserError(f"process {', '.join(str(process.pid) for process in left)}: cannot be killed")
        for process in left:
            with suppress(psutil.Error):
                killed.setdefault(process.pid, " ".join(process.cmdline()[:6]))
                process.kill()
        psutil.wait_procs(left, timeout=1)
    return list(killed.values())


def inspect_launch(launch: str, grace_s: float | None = None) -> Remains:
    """Return what a launch has left on this host. With `grace_s` (seconds), end it and remove its records."""
    killed = [] if grace_s is None else kill_processes(launch, grace_s)
    statuses = [read_status(path) for path in launch_folder(launch).glob("*.json")]
    if grace_s is not None:
        shutil.rmtree(launch_folder(launch), ignore_errors=True)
    return Remains(len(find_processes(launch)), killed, [status["state"] for status in statuses if "state" in status])


if __name__ == "__main__":
    launch_id, *grace = sys.argv[1:]
    sys.stdout.write(json.dumps(asdict(inspect_launch(launch_id, *map(float, grace)))) + "\n")
