"""Commands that build, train and predict, several at a time, each with one thread."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bench.measure import ONE_THREAD, run_command
from pipeline.paths import ROOT

TRAIN = str(ROOT / "train.py")

Result = TypeVar("Result")


def run_single_threaded(command: Sequence[str]) -> None:
    """Run a command on one thread. SystemExit shows its output if it fails."""
    run_command(command, ONE_THREAD)


def run_parallel(jobs: int, tasks: Mapping[str, Callable[[], Result]]) -> dict[str, Result]:
    """Run tasks, `jobs` at a time, and return their results.

    After a failure no other task is started; the exception is raised when the running tasks have ended.
    """
    failed: list[BaseException] = []

    def start(task: Callable[[], Result]) -> Result:
        if failed:
            raise failed[0]
        try:
            return task()
        except BaseException as error:
            failed.append(error)
            raise

    with ThreadPoolExecutor(jobs) as pool:
        futures = {name: pool.submit(start, task) for name, task in tasks.items()}
    return {name: future.result() for name, future in futures.items()}
