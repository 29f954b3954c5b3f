"""Commands that build, train and predict, some at a time, a thread each."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bench.measure import ONE_THREAD, ended
from pipeline.paths import ROOT

TRAIN = str(ROOT / "train.py")

Result = TypeVar("Result")


def call(command: Sequence[str]) -> None:
    """Run a command on one thread to its end; where it fails, SystemExit shows what it printed."""
    ended(command, ONE_THREAD)


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
