"""Prediction of the parts of an input: in this process, in worker processes, or on the ranks of a launcher.

Each part is predicted separately, by one thread on a CPU, so its values do not depend on the number of processes. All
three ways are one loop: submit several parts, and read their values in order.
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
from model.prediction.predictor import PendingValues, Predictor, Values, default_device
from model.prediction.request import PredictionRequest
from pipeline.errors import UserError
from pipeline.runtime.workers import worker_pool

ALONE_S = 10.0
"""Seconds before worker processes start: a small input is complete before they would be ready."""
PARTS_PER_PROCESS = 2
"""Parts submitted per worker process or rank: one being predicted, one in the queue."""
KILLED = (
    "a worker process was killed, probably for lack of memory; fix: run the same command with --workers 1 to resume "
    "with the least memory"
)

Item = TypeVar("Item")


def predict_here(parts: Iterator[Part], request: PredictionRequest) -> Generator[tuple[Part, Values]]:
    """Predict in `request.workers` processes of this machine; yield each part with its float32 predictions, in order.

    workers None: in this process, and after ALONE_S seconds in one process per core. Raises UserError for several
    workers on a machine with a GPU, and for a worker that was killed.
    """
    on_gpu = default_device().type == "cuda"
    if on_gpu and (request.workers or 1) > 1:
        raise UserError(
            f"--workers {request.workers}: for CPUs only, but this machine has a GPU; fix: omit --workers; for several "
            "GPUs: deepspeed --module model.cli predict"
        )
    processes = request.workers or (1 if on_gpu else os.cpu_count() or 1)
    if request.workers is None or processes == 1:
        alone = parts if processes == 1 else _for_seconds(parts, ALONE_S)
        with _one_thread_predictor(request) as begin:
            yield from _in_order(alone, lambda part: begin(part.valid_sequences), 1)
    with worker_pool(processes, KILLED) as pool:
        begin_in_worker = partial(pool.submit, _work, request.model, request.both_strands)
        yield from _in_order(parts, lambda part: begin_in_worker(part.valid_sequences), PARTS_PER_PROCESS * processes)


def predict_on_ranks(parts: Iterator[Part], request: PredictionRequest, world: World) -> Generator[tuple[Part, Values]]:
    """Predict the parts on all ranks in turn; yield each part with its float32 predictions, in order.

    Rank 0 calls this; the others call `serve_rank_0`.
    """
    numbers = count()

    def all_parts() -> Iterator[Part]:
        yield from parts
        end = next(numbers)
        for number in range(end, end + world.ranks):  # end message for the next number of each rank
            _send(f"part {number}", None)

    with _one_thread_predictor(request) as begin:

        def begin_on_rank(part: Part) -> PendingValues:
            number = next(numbers)
            if number % world.ranks == 0:
                return begin(part.valid_sequences)
            _send(f"part {number}", part.valid_sequences)
            return partial(_receive, f"values {number}")

        yield from _in_order(all_parts(), begin_on_rank, PARTS_PER_PROCESS * world.ranks)


def serve_rank_0(request: PredictionRequest, world: World) -> None:
    """Predict the parts that rank 0 sends, until it has no more. All ranks but rank 0 call this."""

    def parts() -> Iterator[tuple[int, pa.Array]]:
        for number in count(world.rank, world.ranks):
            if (sequences := _receive(f"part {number}")) is None:
                return
            yield number, sequences

    with _one_thread_predictor(request) as begin:
        # The next part is received before the values of the last are read, so that a GPU does not wait.
        for (number, _), values in _in_order(parts(), lambda part: begin(part[1]), 1):
            _send(f"values {number}", values)


def _in_order(
    items: Iterator[Item], begin: Callable[[Item], PendingValues], most_pending: int
) -> Generator[tuple[Item, Values]]:
    """Yield items with their values, in order. Up to `most_pending` items are in progress when values are read."""
    pending: deque[tuple[Item, PendingValues]] = deque()
    for item in items:
        pending.append((item, begin(item)))
        if len(pending) > most_pending:
            item, read = pending.popleft()
            yield item, read()
    for item, read in pending:
        yield item, read()


def _for_seconds(parts: Iterator[Part], seconds: float) -> Iterator[Part]:
    """Yield parts for a number of seconds, at least one; the others stay in the iterator."""
    end = time.monotonic() + seconds
    for part in parts:
        yield part
        if time.monotonic() > end:
            return


@contextmanager
def _one_thread_predictor(request: PredictionRequest) -> Iterator[Callable[[pa.Array], PendingValues]]:
    """Yield Predictor.begin with one torch thread: the last digits of a sum can depend on the number of threads."""
    predictor = cache(partial(Predictor, request.model, request.both_strands))  # loaded on first use, if any
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield lambda sequences: predictor().begin(sequences)
    finally:
        torch.set_num_threads(threads)


def _work(model: Path, both_strands: bool, sequences: pa.Array) -> Values:
    """Predict the sequences of a part in a worker process."""
    return _worker_predictor(model, both_strands).predict_valid(sequences)


@cache
def _worker_predictor(model: Path, both_strands: bool) -> Predictor:
    torch.set_num_threads(1)
    return Predictor(model, both_strands)


def _send(name: str, value: pa.Array | Values | None) -> None:
    """Send a message to another rank through the key-value store of the process group.

    Unlike a shared file it needs no common disk, and unlike a collective it makes no rank wait for another.
    """
    c10d._get_default_store().set(f"predict/{name}", pickle.dumps(value))  # type: ignore[arg-type]


def _receive(name: str) -> Any:
    """Wait for a message, remove it from the store, and return its value."""
    store, key = c10d._get_default_store(), f"predict/{name}"
    store.wait([key], TIMEOUT)
    value = pickle.loads(store.get(key))
    store.delete_key(key)
    return value
