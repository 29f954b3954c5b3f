"""Worker processes that end with their parent."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from pipeline.errors import UserError


@contextmanager
def worker_pool(workers: int, killed: str) -> Iterator[ProcessPoolExecutor]:
    """Start up to `workers` processes on demand, for `submit`.

    Raises UserError with message `killed` if a worker is killed.
    """
    # spawn: a fork would copy DuckDB's threads and locks.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, initializer=_die_with, initargs=(os.getpid(),))
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(killed) from None
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:  # a second Ctrl-C: kill running work, too
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise


def submit(pool: ProcessPoolExecutor, work: Callable[..., Any], *args: Any) -> Future[Any]:
    """Submit work(*args) to a pool whose processes ignore Ctrl-C.

    Ctrl-C reaches the whole process group, but workers inherit a mask that blocks it. The parent cancels pending calls;
    a worker finishes its current call.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(work, *args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _die_with(parent: int) -> None:
    """Let Linux kill this worker when its parent dies, even by kill -9."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)
