"""An iterator's work done before it is asked for: by a thread of its own, a bounded number of items ahead.

No processes and no shared memory: nothing outlives the process, however it ends.
"""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_LOOK_SECONDS = 0.1
"""Time between two looks at whether the reader is still there, while the queue is full."""
_CLOSE_SECONDS = 5.0
"""A thread that waits for the network is not waited for any longer; it ends with the process."""


class _End:
    """What the thread ends with. error: that of the iterator, None if it is through."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[Item], number: int, name: str) -> Generator[Item, None, None]:
    """The items, made by a thread called `name`, at most `number` of them waiting.

    The thread begins with the first item asked for. What the iterator raises is raised here, in its place. Closing the
    generator closes the iterator, in its thread, and waits for that, some seconds at most.
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
    """Wait for a place; False when the reader has gone."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=_LOOK_SECONDS)
            return True
        except queue.Full:
            continue
    return False
