"""Who writes the shards of a plan: this process, several of this machine, or the nodes of a Ray cluster.

Each takes whole shards and yields them as they are done, in any order: what is written does not depend on it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed

from pipeline.errors import UserError
from pipeline.runtime.workers import submit, worker_pool
from pipeline.shards.plan import ShardTask
from pipeline.shards.writer import Done, WriteJob, write_shard

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
    killed = f"a writer process was killed, perhaps for want of memory; {_GO_ON} (shards.workers=1 needs the least)"
    with worker_pool(workers, killed) as pool:
        futures = {submit(pool, write_shard, task, job): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()


def on_ray(tasks: Sequence[ShardTask], job: WriteJob) -> Iterator[tuple[ShardTask, Done]]:
    """On a Ray cluster, a core a shard: that of RAY_ADDRESS, or `ray start`ed on this machine, else this machine alone.

    Shards that a lost node was writing are given to another one. Every node needs this package, and the dataset and
    the folder of shards under the same names, or a URL for the latter.
    """
    try:
        import ray
    except ImportError:
        raise UserError("ray is not installed; in the project's folder: pip install -e '.[cluster]'") from None
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
