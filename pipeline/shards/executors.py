"""Executors that write the shards of a plan: this process, several processes, or the nodes of a Ray cluster.

They yield each shard when it is finished, in any order. The bytes of a shard do not depend on the order.
"""

from collections.abc import Callable, Iterator, Sequence

from pipeline.config.schema import DataConfig
from pipeline.errors import UserError
from pipeline.runtime.workers import worker_pool
from pipeline.shards.plan import ShardTask
from pipeline.shards.store import ShardStore
from pipeline.shards.writer import ShardResult, write_shard

Executor = Callable[[Sequence[ShardTask], DataConfig, ShardStore], Iterator[ShardResult]]

RAY_RETRIES = 10
"""Maximum number of times that a shard is written again after the loss of a node."""

_RESUME = "fix: run the same command to resume from the finished shards"


def write_locally(tasks: Sequence[ShardTask], config: DataConfig, store: ShardStore) -> Iterator[ShardResult]:
    """Write shards in `shards.workers` processes, or in this process if that is 1.

    Raises UserError if a shard cannot be written or a worker is killed.
    """
    workers = min(config.shards.workers, len(tasks))
    if workers <= 1:
        yield from (write_shard(task, config, store) for task in tasks)
        return
    killed = f"a writer process was killed, possibly for lack of memory; {_RESUME} (shards.workers=1 needs least)"
    with worker_pool(workers, killed) as pool:
        yield from pool.run_all(write_shard, [(task, config, store) for task in tasks])


def write_on_ray(tasks: Sequence[ShardTask], config: DataConfig, store: ShardStore) -> Iterator[ShardResult]:
    """Write shards on a Ray cluster, one core per shard.

    The cluster is the one at RAY_ADDRESS, else one started on this machine (`ray start`), else this machine alone.
    Another node writes the shards of a lost node. Every node needs this package and the dataset at the same path, and
    the output folder unless it is a URL. Raises UserError if Ray is missing or fails, or a shard cannot be written.
    """
    try:
        import ray
    except ImportError:
        raise UserError("ray is not installed; fix: pip install -e '.[cluster]' in the project folder") from None
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
"""Executors by the value of `--executor`."""
