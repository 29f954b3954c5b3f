"""Predict the parts of an input in this process, in several of this machine, or on the ranks of a launcher.

Each part is predicted by itself, by one thread on a CPU, so its values do not depend on the process. All three ways
are one loop: submit parts some way ahead, and read their values in order.
"""

import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import torch
import torch.distributed.distributed_c10d as c10d

from model.distributed.process_group import World
from model.distributed.rendezvous import TIMEOUT
from model.prediction.inputs import Part
from model.prediction.predictor import Predictor, ReadValues, Values, default_device
from model.prediction.request import PredictionRequest
from pipeline.errors import UserError
from pipeline.runtime.workers import submit, worker_pool

ALONE_S = 10.0
"""Seconds before more processes start: a small input is done before they would be ready."""
PARTS_PER_PROCESS = 2
"""Parts in flight per worker process or rank: one in work, one in the queue."""
KILLED = (
    "a worker process was killed, perhaps for lack of memory; fix: run the same command to resume, with --workers 1 "
    "(needs the least memory)"
)

Item = TypeVar("Item")


def predict_here(parts: Iterator[Part], request: PredictionRequest) -> Generator[tuple[Part, Values]]:
    """Predict in `request.workers` processes; None: in this one, and after ALONE_S in one process per core.

    Raises UserError for several workers on a GPU.
    """
    on_gpu = default_device().type == "cuda"
    if on_gpu and (request.workers or 1) > 1:
        raise UserError(
            f"--workers {request.workers}: for CPUs only, but this machine has a GPU; fix: leave it out, or for "
            "several GPUs: deepspeed --module model.cli predict"
        )
    processes = request.workers or (1 if on_gpu else os.cpu_count() or 1)
    if request.workers is None or processes == 1:
        alone = parts if processes == 1 else _for_seconds(parts, ALONE_S)
        with _one_thread_predictor(request) as begin:
            yield from _in_order(alone, lambda part: begin(part.usable), 1)
    with worker_pool(processes, KILLED) as pool:
        work = partial(submit, pool, _work, request.model, request.both_strands)
        yield from _in_order(parts, lambda part: work(part.usable).result, PARTS_PER_PROCESS * processes)


def predict_on_ranks(parts: Iterator[Part], request: PredictionRequest, world: World) -> Generator[tuple[Part, Values]]:
    """On rank 0: predict the parts on all ranks, in turn. The other ranks call `serve_rank_0`."""
    numbers = count()

    def all_parts() -> Iterator[Part]:
        yield from parts
        end = next(numbers)
        for number in range(end, end + world.ranks):  # the next number that each rank waits for
            _send(f"part {number}", None)

    with _one_thread_predictor(request) as begin:

        def begin_on_rank(part: Part) -> ReadValues:
            number = next(numbers)
            if number % world.ranks == 0:
                return begin(part.usable)
            _send(f"part {number}", part.usable)
            return partial(_receive, f"values {number}")

        yield from _in_order(all_parts(), begin_on_rank, PARTS_PER_PROCESS * world.ranks)


def serve_rank_0(request: PredictionRequest, world: World) -> None:
    """On the other ranks: predict the parts that rank 0 sends, until it has no more."""

    def parts() -> Iterator[tuple[int, pa.Array]]:
        for number in count(world.rank, world.ranks):
            if (sequences := _receive(f"part {number}")) is None:
                return
            yield number, sequences

    with _one_thread_predictor(request) as begin:
        # One more part is received before the values of the last are read: a GPU does not wait.
        for (number, _), values in _in_order(parts(), lambda part: begin(part[1]), 1):
            _send(f"values {number}", values)


def _in_order(items: Iterator[Item], begin: Callable[[Item], ReadValues], ahead: int) -> Generator[tuple[Item, Values]]:
    """Begin items up to `ahead` before the one whose values are read next; yield them in order."""
    begun: deque[tuple[Item, ReadValues]] = deque()
    for item in items:
        begun.append((item, begin(item)))
        if len(begun) > ahead:
            item, read = begun.popleft()
            yield item, read()
    for item, read in begun:
        yield item, read()


def _for_seconds(parts: Iterator[Part], seconds: float) -> Iterator[Part]:
    """Yield the parts that come within some seconds, at least one; the others stay in the iterator."""
    end = time.monotonic() + seconds
    for part in parts:
        yield part
        if time.monotonic() > end:
            return


@contextmanager
def _one_thread_predictor(request: PredictionRequest) -> Iterator[Callable[[pa.Array], ReadValues]]:
    """Yield Predictor.begin, for one thread: the order of a sum, and so its last digits, may depend on their number."""
    predictor = cache(partial(Predictor, request.model, request.both_strands))  # a resumed run may need none
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield lambda sequences: predictor().begin(sequences)
    finally:
        torch.set_num_threads(threads)


def _work(model: Path, both_strands: bool, sequences: pa.Array) -> Values:
    """Predict a part, in a worker process."""
    return _worker_predictor(model, both_strands).predict_usable(sequences)


@cache
def _worker_predictor(model: Path, both_strands: bool) -> Predictor:
    torch.set_num_threads(1)
    return Predictor(model, both_strands)


def _send(name: str, value: pa.Array | Values | None) -> None:
    """Send a message to another rank, through the key-value store of the process group.

    Neither a common disk nor the input is needed on the other hosts, and no rank waits for another's round.
    """
    c10d._get_default_store().set(f"predict/{name}", pickle.dumps(value))  # type: ignore[arg-type]


def _receive(name: str) -> Any:
    """Wait for a message that is sent once, and remove it."""
    store, key = c10d._get_default_store(), f"predict/{name}"
    store.wait([key], TIMEOUT)
    value = pickle.loads(store.get(key))
    store.delete_key(key)
    return value
