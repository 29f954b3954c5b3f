"""Predict the parts of an input in this process, in several of this machine, or on the ranks of a launcher.

Each part is predicted by itself, by one thread on a CPU, so its values do not depend on who predicts it. All three ways
are one loop: submit parts some way ahead, and read their values in order.
"""

import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any, TypeVar

import pyarrow as pa
import torch
import torch.distributed.distributed_c10d as c10d

from model.distributed.process_group import World
from model.distributed.rendezvous import TIMEOUT
from model.prediction.inputs import Part
from model.prediction.predictor import Predictor, PredictorSpec, Values, default_device
from pipeline.errors import UserError
from pipeline.runtime.workers import submit, worker_pool

ALONE_S = 10.0
"""Seconds before more processes are started: a small input is done by the time that they are up."""
PARTS_PER_PROCESS = 2
"""Parts in flight per worker process or rank: one at work, one that waits."""
KILLED = (
    "a worker process was killed, perhaps for lack of memory; fix: run the same command to resume, with --workers 1 "
    "(needs the least memory)"
)

Item = TypeVar("Item")
ReadValues = Callable[[], Values]
"""Waits for the values of a submitted part."""


def predict_here(parts: Iterator[Part], spec: PredictorSpec, workers: int | None) -> Generator[tuple[Part, Values]]:
    """Predict in `workers` processes; None: in this one, and after ALONE_S in one process per core.

    Raises UserError for several workers on a GPU.
    """
    on_gpu = default_device().type == "cuda"
    if on_gpu and (workers or 1) > 1:
        raise UserError(
            f"--workers {workers}: for CPUs only, and this machine has a GPU; fix: leave it out, or for several GPUs: "
            "deepspeed --module model.cli predict"
        )
    processes = workers or (1 if on_gpu else os.cpu_count() or 1)
    if workers is None or processes == 1:
        here = _in_this_process(spec)
        alone = parts if processes == 1 else _for_seconds(parts, ALONE_S)
        with one_thread():
            yield from _in_order(alone, lambda part: here(part.usable), 1)
    with worker_pool(processes, KILLED) as pool:
        in_flight = PARTS_PER_PROCESS * processes
        yield from _in_order(parts, lambda part: submit(pool, _work, spec, part.usable).result, in_flight)


def predict_on_ranks(parts: Iterator[Part], spec: PredictorSpec, world: World) -> Generator[tuple[Part, Values]]:
    """On rank 0: predict the parts on all ranks, by turns. The other ranks call `serve_rank_0`."""
    here, mail, numbers = _in_this_process(spec), _Mail(), count()

    def send(part: Part) -> ReadValues:
        number = next(numbers)
        if number % world.ranks == 0:
            return here(part.usable)
        mail.send(f"part {number}", part.usable)
        return lambda: mail.receive(f"values {number}")

    def all_parts() -> Iterator[Part]:
        yield from parts
        end = next(numbers)
        for number in range(end, end + world.ranks):  # the next number that each rank waits for
            mail.send(f"part {number}", None)

    with one_thread():
        yield from _in_order(all_parts(), send, PARTS_PER_PROCESS * world.ranks)


def serve_rank_0(spec: PredictorSpec, world: World) -> None:
    """On the other ranks: predict the parts that rank 0 sends, until it has no more."""
    here, mail = _in_this_process(spec), _Mail()

    def parts() -> Iterator[tuple[int, pa.Array]]:
        for number in count(world.rank, world.ranks):
            if (sequences := mail.receive(f"part {number}")) is None:
                return
            yield number, sequences

    with one_thread():
        # One more part is received before the values of the last are read: a GPU does not wait.
        for (number, _), values in _in_order(parts(), lambda part: here(part[1]), 1):
            mail.send(f"values {number}", values)


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
    """Pass on the parts that come within some seconds, at least one; the others stay in the iterator."""
    end = time.monotonic() + seconds
    for part in parts:
        yield part
        if time.monotonic() > end:
            return


def _in_this_process(spec: PredictorSpec) -> Callable[[pa.Array], ReadValues]:
    """Return what submits a part to this process. It loads the model for the first: a resumed run may have none."""
    predictor = cache(spec.load)
    return lambda sequences: predictor().begin(sequences).read


def _work(spec: PredictorSpec, sequences: pa.Array) -> Values:
    """Predict a part, in a worker process."""
    return _worker_predictor(spec).predict_usable(sequences)


@cache
def _worker_predictor(spec: PredictorSpec) -> Predictor:
    torch.set_num_threads(1)
    return spec.load()


class _Mail:
    """Messages between rank 0 and the others, through the key-value store of their process group.

    Neither a common disk nor the input is needed on the other hosts, and no rank waits for another's round.
    """

    def __init__(self) -> None:
        self._store = c10d._get_default_store()

    def send(self, name: str, value: pa.Array | Values | None) -> None:
        self._store.set(f"predict/{name}", pickle.dumps(value))  # type: ignore[arg-type]

    def receive(self, name: str) -> Any:
        """Wait for a message that is sent once, and remove it."""
        key = f"predict/{name}"
        self._store.wait([key], TIMEOUT)
        value = pickle.loads(self._store.get(key))
        self._store.delete_key(key)
        return value


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: the order of a sum, and so its last digits, may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
