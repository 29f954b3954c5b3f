"""Worker processes that end with their parent, and at the second Ctrl-C."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import FrameType
from typing import Any

from pipeline.errors import UserError
from pipeline.runtime.interrupts import deferred_interrupts, interrupt_handler


class WorkerPool:
    """Processes that run calls; see `worker_pool`.

    The first Ctrl-C cancels the calls that have not begun, and raises KeyboardInterrupt after the running calls have
    ended. The second one kills the workers.

    A KeyboardInterrupt inside an executor can leave one of its locks locked, and then the program never ends. So the
    pool defers Ctrl-C while it calls the executor, and waits for results in a queue that has no such lock. The signal
    handler itself kills the workers, because the second Ctrl-C can arrive anywhere, also before `_close`.
    """

    def __init__(self, workers: int) -> None:
        self._others = set(multiprocessing.active_children())
        # spawn: a fork would copy DuckDB's threads and locks.
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(workers, context, initializer=_die_with, initargs=(os.getpid(),))
        self._ends = False

    def submit(self, work: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        """Submit work(*args). Return a function that waits for its result; call it once.

        That function raises the error of `work`, or BrokenProcessPool if a worker was killed.
        """
        finished: SimpleQueue[Future[Any]] = SimpleQueue()
        self._submit(finished, work, *args)
        return lambda: finished.get().result()

    def run_all(self, work: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Submit a call of `work` per tuple of arguments. Yield the results as they arrive, in any order."""
        finished: SimpleQueue[Future[Any]] = SimpleQueue()
        submitted = 0
        for args in calls:
            self._submit(finished, work, *args)
            submitted += 1
        for _ in range(submitted):
            yield finished.get().result()

    def _submit(self, finished: SimpleQueue[Future[Any]], work: Callable[..., Any], *args: Any) -> None:
        """Submit a call whose future is put into a queue when it is finished.

        Ctrl-C reaches the whole process group, but workers inherit a signal mask that blocks it.
        """
        with deferred_interrupts():
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._executor.submit(work, *args).add_done_callback(finished.put)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _close(self) -> None:
        """Cancel the calls that have not begun, and wait for the running ones."""
        self._ends = True
        with deferred_interrupts():  # also without `wait`: a thread whose join is interrupted counts as ended
            self._executor.shutdown(wait=False, cancel_futures=True)
        for worker in self._find_workers():
            wait([worker.sentinel])

    def _find_workers(self) -> set[BaseProcess]:
        return set(multiprocessing.active_children()) - self._others

    @contextmanager
    def _handled_interrupts(self) -> Iterator[None]:
        """Handle Ctrl-C while a block runs."""
        earlier: Any = signal.getsignal(signal.SIGINT)

        def interrupt(number: int, frame: FrameType | None) -> None:
            if self._ends:
                for worker in self._find_workers():
                    worker.kill()
            self._ends = True
            earlier(number, frame)

        with interrupt_handler(interrupt):
            yield


@contextmanager
def worker_pool(workers: int, killed: str) -> Iterator[WorkerPool]:
    """Start up to `workers` processes on demand. Raises UserError with message `killed` if a worker is killed."""
    pool = WorkerPool(workers)
    with pool._handled_interrupts():
        try:
            yield pool
        except BrokenProcessPool:
            raise UserError(killed) from None
        finally:
            pool._close()


def _die_with(parent: int) -> None:
    """Let Linux kill this worker when its parent dies, even by kill -9."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)
