"""Who predicts the parts of an input: this process, several of this machine, or the ranks of a launcher.

Each takes the parts in their order and gives them back in it, each with its values: (usable rows,) float32. A part is
predicted by itself, by one thread on a CPU, so its values are the same whoever predicts it.
"""

import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist

from model.distributed.process_group import World
from model.distributed.rendezvous import TIMEOUT
from model.prediction.inputs import Part
from model.prediction.journal import Values
from model.prediction.predictor import Pending, Predictor, device
from pipeline.errors import UserError
from pipeline.runtime.workers import submit, worker_pool

ALONE_SECONDS = 10.0
"""To start a process takes some seconds, in which the work may be done."""
AHEAD = 2
"""Parts handed out for each worker: one at hand, one that waits."""
A_ROUND = 4
"""Parts handed out to each rank at once."""


@dataclass(frozen=True)
class Use:
    """A model and how it is used: what a process needs to know to predict parts."""

    folder: Path
    both_strands: bool

    def load(self) -> Predictor:
        """The model, on this process's device."""
        return Predictor(self.folder, self.both_strands)


def predict_parts(parts: Iterator[Part], use: Use, workers: int | None) -> Generator[tuple[Part, Values]]:
    """In `workers` processes; for None in this one and, where that takes long, then in one a core.

    Raises UserError for several workers where there is a GPU.
    """
    on_gpu = device().type == "cuda"
    if on_gpu and (workers or 1) > 1:
        raise UserError(
            f"--workers {workers}: these are processes of a CPU; for several GPUs: deepspeed --module model.cli predict"
        )
    processes = workers or (1 if on_gpu else os.cpu_count() or 1)
    if workers is None or processes == 1:
        yield from _here(parts, use, ALONE_SECONDS if processes > 1 else float("inf"))
    yield from _in_processes(parts, use, processes)


def _here(parts: Iterator[Part], use: Use, seconds: float) -> Generator[tuple[Part, Values]]:
    """Those parts that are begun within so many seconds. A GPU is at one while the next is prepared."""
    began = time.monotonic()
    with one_thread():
        predictor = None
        before: tuple[Part, Pending] | None = None
        for part in parts:
            predictor = predictor or use.load()
            here = part, predictor.begin(part.usable)
            if before is not None:
                yield before[0], before[1].read()
            before = here
            if time.monotonic() - began > seconds:
                break
        if before is not None:
            yield before[0], before[1].read()


def _in_processes(parts: Iterator[Part], use: Use, workers: int) -> Generator[tuple[Part, Values]]:
    killed = (
        "a worker process was killed, perhaps for want of memory; the same command goes on from what is predicted "
        "(--workers 1 needs the least)"
    )
    with worker_pool(workers, killed) as pool:
        waiting: deque[tuple[Part, Any]] = deque()
        for part in parts:
            waiting.append((part, submit(pool, _work, use, part.usable)))
            if len(waiting) == AHEAD * workers:
                part, future = waiting.popleft()
                yield part, future.result()
        while waiting:
            part, future = waiting.popleft()
            yield part, future.result()


def _work(use: Use, sequences: pa.Array) -> Values:
    """In a worker process."""
    return _loaded(use).predict_usable(sequences)


@cache
def _loaded(use: Use) -> Predictor:
    torch.set_num_threads(1)
    return use.load()


def lead(parts: Iterator[Part], use: Use, world: World) -> Generator[tuple[Part, Values]]:
    """On rank 0: hand the parts out to all ranks, this one included. The others `follow`."""
    group = _group()
    with one_thread():
        predictor = use.load()
        while bundle := list(islice(parts, A_ROUND * world.ranks)):
            shares = [[part.usable for part in bundle[rank :: world.ranks]] for rank in range(world.ranks)]
            dist.scatter_object_list([None], shares, src=0, group=group)
            found: list[Any] = [None] * world.ranks
            dist.gather_object(_all(predictor, shares[0]), found, dst=0, group=group)
            for place, part in enumerate(bundle):
                yield part, found[place % world.ranks][place // world.ranks]
        dist.scatter_object_list([None], [None] * world.ranks, src=0, group=group)


def follow(use: Use) -> None:
    """On the other ranks: predict what rank 0 hands out, until there is no more."""
    group = _group()
    with one_thread():
        predictor = use.load()
        while True:
            share: list[Any] = [None]
            dist.scatter_object_list(share, None, src=0, group=group)
            if share[0] is None:
                return
            dist.gather_object(_all(predictor, share[0]), None, dst=0, group=group)


def _all(predictor: Predictor, share: Iterable[pa.Array]) -> list[Values]:
    begun = [predictor.begin(sequences) for sequences in share]
    return [values.read() for values in begun]


def _group() -> dist.ProcessGroup:
    """For objects, which need no GPU."""
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=TIMEOUT)
    return group


@contextmanager
def one_thread() -> Iterator[None]:
    """A sum's order, and so its last digits, may depend on the number of threads that share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
