"""Commands that build, train and predict, some at a time, a thread each."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

COMMAND = str(Path(sys.executable).with_name("promoter-bert"))
TRAIN = str(Path(__file__).resolve().parent.parent / "train.py")

Result = TypeVar("Result")


def call(command: Sequence[str]) -> str:
    """Run a command on one thread to its end. Gives what it printed; where it fails, SystemExit shows that."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout


def at_a_time(jobs: int, tasks: Mapping[str, Callable[[], Result]]) -> dict[str, Result]:
    """What each task gives, `jobs` of them at a time. Where one fails, those at work end first, no other is begun, and
    its exception is raised.
    """
    failed: list[BaseException] = []

    def begin(task: Callable[[], Result]) -> Result:
        if failed:
            raise failed[0]
        try:
            return task()
        except BaseException as error:
            failed.append(error)
            raise

    with ThreadPoolExecutor(jobs) as pool:
        futures = {name: pool.submit(begin, task) for name, task in tasks.items()}
    return {name: future.result() for name, future in futures.items()}
