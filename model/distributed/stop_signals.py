"""Stop requests by signal: the training loop ends between two steps, with a checkpoint.

Seen with DeepSpeed 0.19: SIGTERM to `deepspeed` on one machine ends its runner only, and the watchdogs send it on to
the ranks. Ctrl-C reaches all processes, and each rank is then sent SIGTERM and killed 30 s later. So only a second
Ctrl-C ends a rank at once. A stop request of any rank is shared with the others.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from model.distributed.process_group import World
from model.watchdog.client import STOP_SIGNALS

ECHO_S = 1.0
"""A second Ctrl-C within this time may be the launcher's echo of the first."""


class StopRequest:
    """Request to stop, from a signal to any rank."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._noted_at: float | None = None

    def note(self, number: int, _frame: object) -> None:
        """Handle a signal. Raises KeyboardInterrupt at a second Ctrl-C."""
        now = time.monotonic()
        if number == signal.SIGINT and self._noted_at is not None and now - self._noted_at > ECHO_S:
            raise KeyboardInterrupt
        self._noted_at = self._noted_at or now

    def agreed(self) -> bool:
        """Return whether any rank received a stop request. All ranks must call this and get the same answer."""
        requested = self._noted_at is not None
        if self._world.ranks == 1:
            return requested
        flag = torch.tensor([int(requested)], device=self._world.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


@contextmanager
def stop_requests(world: World) -> Iterator[StopRequest]:
    """Turn signals into a stop request while a block runs; their earlier handlers are restored."""
    request = StopRequest(world)
    before = {number: signal.signal(number, request.note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
