"""Process group of the ranks, under any launcher or none, and its collectives."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from model.distributed.network import choose_interface
from model.distributed.rendezvous import TIMEOUT, meet
from model.watchdog.client import Watchdog
from pipeline.errors import UserError

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """Rank of this process and number of ranks. device: of its model and batches."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def is_rank0(self) -> bool:
        """Return whether this process writes files and messages for all ranks."""
        return self.rank == 0


@contextmanager
def join_group(watchdog: Watchdog | None) -> Iterator[World]:
    """Make this process a member of the process group while a block runs. An error ends the run on every rank."""
    world = start(watchdog)
    try:
        yield world
    except BaseException as error:
        if watchdog is not None:
            watchdog.report_error(error)
        # NCCL would wait for the other ranks; gloo does not, and its threads must not outlive Python.
        if dist.is_initialized() and dist.get_backend() == "gloo":
            stop()
        raise
    stop()


def start(watchdog: Watchdog | None = None) -> World:
    """Join the process group that the launcher describes in the environment; without launcher, make a group of one."""
    choose_interface(os.environ)
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would detect it with a warning
    import deepspeed
    from deepspeed.ops import __compatible_ops__
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    # On CPUs DeepSpeed would compile a shared-memory operator at start-up; gloo is as fast and needs no compiler.
    __compatible_ops__["deepspeed_shm_comm"] = False
    try:
        rendezvous_store = meet(watchdog)
        deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", timeout=TIMEOUT, verbose=False)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UserError(
            f"port {os.environ['MASTER_PORT']}: already in use, perhaps by another training on this machine; fix: "
            "choose another port, deepspeed --master_port 29501 train.py ..."
        ) from None
    del rendezvous_store  # DeepSpeed has its own on the same port now
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
        torch.set_num_threads(max((os.cpu_count() or 1) // here, 1))
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    return World(dist.get_rank(), dist.get_world_size(), device)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
    from deepspeed.utils import groups

    groups._WORLD_GROUP = None  # DeepSpeed's copy of it, which a later training in this process would use


def limit_waits() -> None:
    """Set the time limit of every process group, as DeepSpeed creates some with a longer one."""
    for group in list(c10d._world.pg_map):
        c10d._set_pg_timeout(TIMEOUT, group)


def sums_over_ranks(*values: torch.Tensor) -> list[float]:
    """Sum each scalar over all ranks, in float64."""
    total = torch.stack([value.detach().double() for value in values])
    dist.all_reduce(total)
    return [float(value) for value in total]


def all_gather(value: Any) -> list[Any]:
    """Gather an object from each rank. Returns them on every rank, in the order of the ranks."""
    out: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(out, value)
    return out


def broadcast(value: Any) -> Any:
    """Return rank 0's object on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def run_on_rank0(world: World, work: Callable[[], Result]) -> Result:
    """Run `work` on rank 0. Returns its result, or raises its UserError, on every rank. All ranks must call this."""
    outcome: tuple[Any, str | None] = (None, None)
    if world.is_rank0:
        try:
            outcome = (work(), None)
        except UserError as error:
            outcome = (None, str(error))
    result, problem = broadcast(outcome)
    if problem is not None:
        raise UserError(problem)
    return cast("Result", result)
