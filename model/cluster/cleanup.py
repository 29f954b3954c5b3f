"""Processes of one launch on this host, found by its id in their environment: how they ended, and their end.

relaunch runs this module on every host over ssh.
"""

import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import psutil

from model.runs.status import LAUNCH, State, launch_folder, read_status

KILL_TIMEOUT_S = 30


@dataclass
class Remains:
    """What a launch has left on a host. All fields are plain values."""

    running: int = 0
    """Processes that still run."""
    killed: list[str] = field(default_factory=list)
    """Command lines of the processes that were killed."""
    states: list[str] = field(default_factory=list)
    """The last state of each rank that has recorded one."""
    problem: str = ""
    """Why the host could not be asked."""

    @property
    def failed(self) -> bool:
        """Whether the host is unreachable, or runs nothing of the launch any more without having finished it."""
        return bool(self.problem) or (not self.running and set(self.states) != {State.FINISHED})


def find_processes(launch: str) -> list[psutil.Process]:
    """Find this user's processes that have the launch id in their environment, this process excepted."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(LAUNCH) == launch:
                found.append(process)
    return found


def kill_processes(launch: str, grace_s: float) -> list[str]:
    """Give the processes of a launch `grace_s` seconds to end, then kill them. Returns the killed command lines.

    No process is left afterwards. Raises RuntimeError if one cannot be killed.
    """
    _, left = psutil.wait_procs(find_processes(launch), timeout=grace_s)
    lines = []
    for process in left:
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()[:6]))
            process.kill()
    _, alive = psutil.wait_procs([*left, *find_processes(launch)], timeout=KILL_TIMEOUT_S)
    alive = [process for process in alive if _is_running(process)]
    if alive:
        raise RuntimeError(f"could not be killed: process {', '.join(str(process.pid) for process in alive)}")
    return lines


def read_states(launch: str) -> list[str]:
    """Read the last state of each rank of a launch on this host."""
    statuses = [read_status(path) for path in launch_folder(launch).glob("*.json")]
    return [status["state"] for status in statuses if status.get("launch") == launch and "state" in status]


def look(launch: str) -> Remains:
    """Look at a launch on this host."""
    return Remains(len(find_processes(launch)), [], read_states(launch))


def clean_up(launch: str, grace_s: float) -> Remains:
    """End a launch on this host, and remove its records."""
    remains = Remains(0, kill_processes(launch, grace_s), read_states(launch))
    shutil.rmtree(launch_folder(launch), ignore_errors=True)
    return remains


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


if __name__ == "__main__":
    launch_id, *grace = sys.argv[1:]
    remains = clean_up(launch_id, float(grace[0])) if grace else look(launch_id)
    sys.stdout.write(json.dumps(asdict(remains)) + "\n")
