"""Inspect or kill the processes of one launch on this host, which have its id in their environment.

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

from model.runs.status import LAUNCH, State, locate_launch_folder, read_status
from pipeline.errors import UserError

KILL_TIMEOUT_S = 30
"""Time in which killed processes must end."""


@dataclass
class Leftovers:
    """Processes and records of a launch on a host, in values that JSON can hold.

    running: number of running processes; killed: command lines of killed processes; states: last recorded state of each
    rank; problem: why the host could not be queried, or empty.
    """

    running: int = 0
    killed: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Return whether the host is unreachable, or its processes have ended without finishing the training."""
        return bool(self.problem) or (not self.running and set(self.states) != {State.FINISHED})


def find_processes(launch: str) -> list[psutil.Process]:
    """Find this user's running processes that have the launch id in their environment, except this process."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(LAUNCH) == launch:
                processes.append(process)
    return processes


def kill_processes(launch: str, grace_s: float) -> list[str]:
    """Wait `grace_s` seconds for the processes of a launch to end, then kill them. Returns the killed command lines.

    Raises UserError if a process cannot be killed.
    """
    psutil.wait_procs(find_processes(launch), timeout=grace_s)
    killed: dict[int, str] = {}
    end = time.monotonic() + KILL_TIMEOUT_S
    # Search again until none is left, as new processes may have started during a search.
    while processes := find_processes(launch):
        if time.monotonic() > end:
            ids = ", ".join(str(process.pid) for process in processes)
            raise UserError(
                f"process {ids}: cannot be killed; fix: end it by hand, then run the same command to resume"
            )
        for process in processes:
            with suppress(psutil.Error):
                killed.setdefault(process.pid, " ".join(process.cmdline()[:6]))
                process.kill()
        psutil.wait_procs(processes, timeout=1)
    return list(killed.values())


def inspect_launch(launch: str, grace_s: float | None = None) -> Leftovers:
    """Inspect the processes and records of a launch on this host; with `grace_s`, kill and remove them.

    grace_s: seconds in which the processes may end by themselves. Raises UserError if one cannot be killed.
    """
    killed = [] if grace_s is None else kill_processes(launch, grace_s)
    statuses = [read_status(path) for path in locate_launch_folder(launch).glob("*.json")]
    if grace_s is not None:
        shutil.rmtree(locate_launch_folder(launch), ignore_errors=True)
    return Leftovers(len(find_processes(launch)), killed, [status["state"] for status in statuses if "state" in status])


if __name__ == "__main__":
    launch_id, *grace = sys.argv[1:]
    sys.stdout.write(json.dumps(asdict(inspect_launch(launch_id, *map(float, grace)))) + "\n")
