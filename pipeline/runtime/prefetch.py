"""Prefetch an iterator in a background thread, a bounded number of items ahead.

No processes and no shared memory: nothing outlives the process, however it ends.
"""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_POLL_SECONDS = 0.1
"""Seconds between two checks whether the reader has stopped, while the queue is full."""
_CLOSE_SECONDS = 5.0
"""A thread that waits for the network is not joined any longer; it ends with the process."""


class _End:
    """The last item of the queue. error: raised by the iterator, None if it is exhausted."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(items: Iterable[Item], number: int, name: str) -> Generator[Item, None, None]:
    """Prefetch up to `number` items in a thread called `name`.

    The thread starts with the first `next`. An error of the iterator is raised here, in its place. Closing the
    generator closes the iterator in its thread, and waits some seconds for that.
    """
    ready: queue.Queue[Item | _End] = queue.Queue(number)
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(iter(items), ready, stop), name=name, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join(_CLOSE_SECONDS)


def _work(items: Iterator[Item], ready: "queue.Queue[Item | _End]", stop: threading.Event) -> None:
    try:
        for item in items:
            if not _put(ready, item, stop):
                break
        end = _End()
    except BaseException as error:
        end = _End(error)
    finally:
        if isinstance(items, Generator):
            items.close()
    _put(ready, end, stop)


def _put(ready: "queue.Queue[Item | _End]", item: "Item | _End", stop: threading.Event) -> bool:
    """Put an item as soon as there is room. Returns False once the reader has stopped."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=_POLL_SECONDS)
            return True
        except queue.Full:
            continue
    return False
