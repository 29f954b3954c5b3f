"""A polite end: a signal is noted; the loop asks between two steps and ends there.

What launchers do (seen with DeepSpeed 0.19): SIGTERM to `deepspeed` on one machine ends its runner only, and the guards
send it on to the ranks; Ctrl-C reaches all of them, and one after the other is then sent SIGTERM and killed 30 s later.
So a second signal is no reason to hurry, unless it is another Ctrl-C, and any rank that knows tells the others.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist

from model.distributed.process_group import World

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 1.0
"""Seconds after which another Ctrl-C is a user's, and no echo of the first by a launcher."""


class StopRequest:
    """Whether the processes were asked to end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._noted_at: float | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler. Raises KeyboardInterrupt at a second Ctrl-C."""
        del frame
        now = time.monotonic()
        if number == signal.SIGINT and self._noted_at is not None and now - self._noted_at > PATIENCE:
            raise KeyboardInterrupt
        self._noted_at = self._noted_at or now

    def agreed(self) -> bool:
        """Whether any rank was asked. All ranks call this and get the same answer."""
        asked = self._noted_at is not None
        if self._world.ranks == 1:
            return asked
        flag = torch.tensor([int(asked)], device=self._world.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


@contextmanager
def stop_requests(world: World) -> Iterator[StopRequest]:
    """From here on signals are noted; before and after, they do what they did."""
    request = StopRequest(world)
    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {
        number: signal.signal(number, request.note) for number in SIGNALS
    }
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
