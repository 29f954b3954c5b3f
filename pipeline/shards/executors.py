"""Executors that write the shards of a plan: this process, several processes, or the nodes of a Ray cluster.

Each writes whole shards and yields them as they finish, in any order: the bytes do not depend on it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed

from pipeline.config.schema import DataConfig
from pipeline.errors import UserError
from pipeline.runtime.workers import submit, worker_pool
from pipeline.shards.plan import ShardTask
from pipeline.shards.store import ShardStore
from pipeline.shards.writer import ShardResult, write_shard

Executor = Callable[[Sequence[ShardTask], DataConfig, ShardStore], Iterator[ShardResult]]

RAY_RETRIES = 10
"""Nodes that may be lost while writing one shard."""

_RESUME = "fix: run the same command to resume from the finished shards"


def write_locally(tasks: Sequence[ShardTask], config: DataConfig, store: ShardStore) -> Iterator[ShardResult]:
    """Write shards one by one in this process, or in `shards.workers` processes."""
    workers = min(config.shards.workers, len(tasks))
    if workers <= 1:
        yield from (write_shard(task, config, store) for task in tasks)
        return
    killed = f"a writer process was killed, perhaps for lack of memory; {_RESUME} (shards.workers=1 needs the least)"
    with worker_pool(workers, killed) as pool:
        for future in as_completed([submit(pool, write_shard, task, config, store) for task in tasks]):
            yield future.result()


def write_on_ray(tasks: Sequence[ShardTask], config: DataConfig, store: ShardStore) -> Iterator[ShardResult]:
    """Write shards on a Ray cluster, one core per shard.

    The cluster is that of RAY_ADDRESS, one started on this machine (`ray start`), or this machine alone. The shards of
    a lost node go to another one. Every node needs this package, and the dataset under the same path; the shards too,
    unless they go to a URL.
    """
    try:
        import ray
    except ImportError:
        raise UserError("ray is not installed; fix, in the project's folder: pip install -e '.[cluster]'") from None
    owns_ray = not ray.is_initialized()
    if owns_ray:
        ray.init(logging_level="warning", log_to_driver=False)
    try:
        write = ray.remote(num_cpus=1, max_retries=RAY_RETRIES)(write_shard)
        shared = ray.put(config)
        pending = [write.remote(task, shared, store) for task in tasks]
        while pending:
            (ready,), pending = ray.wait(pending, num_returns=1)
            yield ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:
        raise UserError(f"the Ray cluster failed: {str(error).splitlines()[0]}; {_RESUME}") from None
    finally:
        if owns_ray:
            ray.shutdown()


EXECUTORS: dict[str, Executor] = {"local": write_locally, "ray": write_on_ray}
"""Executors by the name that `--executor` takes."""
