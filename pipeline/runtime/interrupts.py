"""Ctrl-C deferred to the end of a block."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def receives_interrupts() -> bool:
    """Return whether Ctrl-C calls a Python handler in this thread. Only the main thread has one."""
    return callable(signal.getsignal(signal.SIGINT)) and threading.current_thread() is threading.main_thread()


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Defer Ctrl-C to the end of a block that must not be interrupted."""
    if not receives_interrupts():
        yield
        return
    received = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = True

    earlier = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
        if received:
            signal.raise_signal(signal.SIGINT)
