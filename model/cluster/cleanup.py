"""The processes of one launch on this host, found by a mark in their environment, and their end."""

import json
import os
import sys
from contextlib import suppress

import psutil

MARK = "PYTHON_PROMOTER_BERT_LAUNCH"
"""DeepSpeed hands variables that begin with PYTHON on to every host; no others."""


def marked(mark: str) -> list[psutil.Process]:
    """This user's processes that were started, directly or not, with the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def sweep(mark: str, grace: float) -> list[str]:
    """Wait `grace` seconds for the marked processes to end by themselves, kill those left; their command lines.

    Returns only when none is there any more. Raises RuntimeError where one cannot be killed.
    """
    _, left = psutil.wait_procs(marked(mark), timeout=grace)
    lines = []
    for process in left:
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()[:6]))
            process.kill()
    _, alive = psutil.wait_procs([*left, *marked(mark)], timeout=30)
    alive = [process for process in alive if _is_there(process)]
    if alive:
        raise RuntimeError(f"could not be killed: process {', '.join(str(process.pid) for process in alive)}")
    return lines


def _is_there(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


if __name__ == "__main__":
    sys.stdout.write(json.dumps(sweep(sys.argv[1], float(sys.argv[2]))) + "\n")
