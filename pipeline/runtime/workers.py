"""Processes that work for this one and never outlive it."""

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
    """Up to `workers` processes; give them work by `submit`. killed: what to say where one of them was killed."""
    # spawn: a fork would copy DuckDB's threads and locks.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, initializer=_end_with, initargs=(os.getpid(),))
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(killed) from None
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:  # once more: not even the work at hand is waited for
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise


def submit(pool: ProcessPoolExecutor, work: Callable[..., Any], *given: Any) -> Future[Any]:
    """Have a pool call work(*given), in a process that does not hear Ctrl-C.

    It reaches the whole group, but workers inherit that they are not to hear it: the parent ends the work, a worker
    finishes what it has at hand.
    """
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(work, *given)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _end_with(parent: int) -> None:
    """In a worker: have Linux end it with the process that started it, kill -9 of that included."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it was asked for
        os._exit(1)
