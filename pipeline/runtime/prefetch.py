"""Prefetch of an iterator in a background thread, with a bounded number of items.

It uses no processes and no shared memory, so nothing remains when the process ends, even by kill -9.
"""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")

_POLL_SECONDS = 0.1
"""Seconds between two checks whether the consumer stopped, while the queue is full."""
_CLOSE_SECONDS = 5.0
"""Longest wait for the thread to end. One that still waits for the network ends with the process."""

_END: Any = object()
"""The last item of the queue."""


def prefetch(items: Iterable[Item], number: int, name: str) -> Generator[Item, None, None]:
    """Prefetch up to `number` items in a thread called `name`.

    The thread starts at the first `next`. An error of the iterator is raised at the same position. Closing the
    generator closes the iterator in its thread, and waits up to five seconds for that.
    """
    ready: queue.Queue[Item] = queue.Queue(number)
    errors: list[BaseException] = []
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(iter(items), ready, errors, stop), name=name, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            yield item
        if errors:
            raise errors[0]
    finally:
        stop.set()
        thread.join(_CLOSE_SECONDS)


def _work(items: Iterator[Item], ready: queue.Queue[Item], errors: list[BaseException], stop: threading.Event) -> None:
    try:
        for item in items:
            if not _put(ready, item, stop):
                break
    except BaseException as error:
        errors.append(error)
    finally:
        if isinstance(items, Generator):
            items.close()
    _put(ready, _END, stop)


def _put(ready: queue.Queue[Item], item: Item, stop: threading.Event) -> bool:
    """Put an item into the queue when it has room. Returns False if the consumer stopped."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=_POLL_SECONDS)
            return True
        except queue.Full:
            continue
    return False
