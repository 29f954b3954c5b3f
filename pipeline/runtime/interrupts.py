"""Handlers of Ctrl-C for the time of a block."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def interrupt_handler(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle Ctrl-C by a function while a block runs.

    Nothing changes in other threads, which do not receive Ctrl-C, and where no Python function handles it.
    """
    if not callable(signal.getsignal(signal.SIGINT)) or threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Defer Ctrl-C to the end of a block that must not be interrupted."""
    received = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = True

    try:
        with interrupt_handler(note):
            yield
    finally:
        if received:
            signal.raise_signal(signal.SIGINT)
