"""Who writes the shards of a plan: this process, several of this machine, or the nodes of a Ray cluster.

Each takes whole shards and yields them as they are done, in any order: what is written does not depend on it.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from pipeline.errors import UserError
from pipeline.plan import ShardTask
from pipeline.shard_writer import Done, WriteJob, write_shard

Executor = Callable[[Sequence[ShardTask], WriteJob], Iterator[tuple[ShardTask, Done]]]

RAY_RETRIES = 10
"""Nodes that may be lost under one and the same shard."""

_GO_ON = "the same command goes on from the finished shards"


def here(tasks: Sequence[ShardTask], job: WriteJob) -> Iterator[tuple[ShardTask, Done]]:
    """One after another in this process, or in `shards.workers` processes."""
    workers = min(job.config.shards.workers, len(tasks))
    if workers <= 1:
        yield from ((task, write_shard(task, job)) for task in tasks)
        return
    # spawn: a fork would copy DuckDB's threads and locks.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, initializer=_end_with, initargs=(os.getpid(),))
    try:
        # Ctrl-C reaches the whole group, but writers inherit that they are not to hear it: the parent ends the work,
        # a writer finishes its shard.
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        futures = {pool.submit(write_shard, task, job): task for task in tasks}
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise UserError(
            f"a writer process was killed, perhaps for want of memory; {_GO_ON} (shards.workers=1 needs the least)"
        ) from None
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:  # once more: not even the shards at hand are waited for
            for writer in set(multiprocessing.active_children()) - others:
                writer.kill()
            raise


def _end_with(parent: int) -> None:
    """In a writer process: have Linux end it with the process that started it, kill -9 of that included."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it was asked for
        os._exit(1)


def on_ray(tasks: Sequence[ShardTask], job: WriteJob) -> Iterator[tuple[ShardTask, Done]]:
    """On a Ray cluster, a core a shard: that of RAY_ADDRESS, or `ray start`ed on this machine, else this machine alone.

    Shards that a lost node was writing are given to another one. Every node needs this package, and the dataset and
    the folder of shards under the same names, or a URL for the latter.
    """
    try:
        import ray
    except ImportError:
        raise UserError("ray is not installed; pip install 'promoter-bert[cluster]'") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(logging_level="warning", log_to_driver=False)
    try:
        write = ray.remote(num_cpus=1, max_retries=RAY_RETRIES)(write_shard)
        shared = ray.put(job)
        pending = {write.remote(task, shared): task for task in tasks}
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(ready), ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:
        raise UserError(f"the cluster lost a writer for good: {str(error).splitlines()[0]}; {_GO_ON}") from None
    finally:
        if ours:
            ray.shutdown()


EXECUTORS: dict[str, Executor] = {"local": here, "ray": on_ray}
