"""Handlers of signals for the time of a block, above all of Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def signal_handlers(numbers: Iterable[int], handler: Handler) -> Iterator[None]:
    """Handle signals by a function while a block runs, and restore the earlier handlers afterwards."""
    earlier = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


@contextmanager
def interrupt_handler(handler: Handler) -> Iterator[None]:
    """Handle Ctrl-C by a function while a block runs.

    Nothing changes in other threads, which do not receive Ctrl-C, and where no Python function handles it.
    """
    if not callable(signal.getsignal(signal.SIGINT)) or threading.current_thread() is not threading.main_thread():
        yield
        return
    with signal_handlers([signal.SIGINT], handler):
        yield


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
