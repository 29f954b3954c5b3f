"""Process group of the ranks, with or without a launcher, and its collectives."""

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
from model.distributed.rendezvous import TIMEOUT, join_rendezvous
from model.watchdog.client import Watchdog
from pipeline.errors import UserError

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """Rank of this process, number of ranks, and device of this rank's model and batches."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def is_rank0(self) -> bool:
        """Return whether this is rank 0, which writes files and messages for all ranks."""
        return self.rank == 0


@contextmanager
def join_group(watchdog: Watchdog | None) -> Iterator[World]:
    """Make this process a member of the process group while a block runs. An error ends the run on every rank.

    Raises UserError if the port is in use, or if no route leads to the first host.
    """
    world = init_group(watchdog)
    try:
        yield world
    except BaseException as error:
        if watchdog is not None:
            watchdog.report_error(error)
        # NCCL would wait for the other ranks here. gloo does not, and its threads must end before Python does.
        if dist.is_initialized() and dist.get_backend() == "gloo":
            leave_group()
        raise
    leave_group()


def init_group(watchdog: Watchdog | None = None) -> World:
    """Join the process group that the launcher describes in the environment; without a launcher, make a group of one.

    Raises UserError if the port is in use, or if no route leads to the first host.
    """
    choose_interface(os.environ)
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # without it DeepSpeed prints a warning
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local_rank)  # before NCCL starts, which would use the first GPU for every rank
    else:
        # DeepSpeed would probe compilers for all its operators and compile one for shared memory; gloo is as fast. The
        # dictionary is made here, as in DeepSpeed 0.19 the first access to it is what probes.
        vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    try:
        rendezvous_store = join_rendezvous(watchdog)
        deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", timeout=TIMEOUT, verbose=False)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UserError(
            f"port {os.environ['MASTER_PORT']}: already in use, perhaps by another training on this host; fix: use "
            "another port, deepspeed --master_port 29501 train.py ..."
        ) from None
    del rendezvous_store  # it kept the port open until DeepSpeed's own store used it
    if "OMP_NUM_THREADS" not in os.environ:
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
        torch.set_num_threads(max((os.cpu_count() or 1) // ranks_here, 1))
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    return World(dist.get_rank(), dist.get_world_size(), device)


def leave_group() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
    from deepspeed.utils import groups

    groups._WORLD_GROUP = None  # otherwise a later training in this process would use DeepSpeed's old group


def set_group_timeouts() -> None:
    """Set the timeout of every process group, as DeepSpeed creates some with a longer one."""
    for group in list(c10d._world.pg_map):
        c10d._set_pg_timeout(TIMEOUT, group)


def sum_over_ranks(*values: torch.Tensor) -> list[float]:
    """Sum each scalar tensor over all ranks, in float64. All ranks must call this."""
    total = torch.stack([value.detach().double() for value in values])
    dist.all_reduce(total)
    return [float(value) for value in total]


def all_gather(value: Any) -> list[Any]:
    """Gather an object from each rank. Returns all objects on every rank, in rank order. All ranks must call this."""
    out: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(out, value)
    return out


def broadcast(value: Any) -> Any:
    """Send rank 0's object to every rank and return it. All ranks must call this."""
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
