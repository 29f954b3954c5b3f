"""Stop requests by signal: the training loop ends between two steps, with a checkpoint.

With DeepSpeed 0.19, SIGTERM to `deepspeed` on one host ends only its runner; the watchdogs then forward it to the
ranks. Ctrl-C reaches all processes; the launcher then sends SIGTERM to each rank and kills it 30 s later. So only a
second Ctrl-C ends a rank at once. A stop request to any rank stops all ranks.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from model.distributed.process_group import World
from model.watchdog.client import STOP_SIGNALS
from pipeline.runtime.interrupts import signal_handlers

ECHO_S = 1.0
"""A second SIGINT within this time may be the launcher's copy of the first one."""


class StopRequest:
    """Request to stop the training, by a signal to any rank."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._signal_s: float | None = None  # time of the first signal

    def handle_signal(self, number: int, _frame: object) -> None:
        """Record a signal as a stop request. Raises KeyboardInterrupt at a second Ctrl-C."""
        now = time.monotonic()
        if number == signal.SIGINT and self._signal_s is not None and now - self._signal_s > ECHO_S:
            raise KeyboardInterrupt
        self._signal_s = self._signal_s or now

    def is_requested(self) -> bool:
        """Return whether any rank received a stop request. All ranks must call this and get the same result."""
        requested = self._signal_s is not None
        if self._world.ranks == 1:
            return requested
        flag = torch.tensor([int(requested)], device=self._world.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


@contextmanager
def catch_stop_signals(world: World) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a stop request while a block runs; restore the earlier handlers afterwards."""
    request = StopRequest(world)
    with signal_handlers(STOP_SIGNALS, request.handle_signal):
        yield request
