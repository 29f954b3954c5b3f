"""Parallel runs of single-threaded commands."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bench.measure import ONE_THREAD, run_command
from pipeline.paths import ROOT

TRAIN = str(ROOT / "train.py")

Result = TypeVar("Result")


def run_single_threaded(command: Sequence[str]) -> None:
    """Run a command with one thread. Raises SystemExit with its output if it fails."""
    run_command(command, ONE_THREAD)


def run_parallel(jobs: int, tasks: Mapping[str, Callable[[], Result]]) -> dict[str, Result]:
    """Run tasks, `jobs` at a time, and return their results.

    After a failure no further task starts. The exception is raised when the running tasks have ended.
    """
    failures: list[BaseException] = []

    def start(task: Callable[[], Result]) -> Result:
        if failures:
            raise failures[0]
        try:
            return task()
        except BaseException as error:
            failures.append(error)
            raise

    with ThreadPoolExecutor(jobs) as pool:
        futures = {name: pool.submit(start, task) for name, task in tasks.items()}
    return {name: future.result() for name, future in futures.items()}
