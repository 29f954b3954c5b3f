"""Progress of a long job on standard error: a bar on a terminal, otherwise a plain line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.runtime.text import escape_controls, format_duration

PLAIN_SECONDS = 5.0, 60.0
"""Seconds between two plain lines: at the start, and at most."""
BAR_WIDTH = 20
LINE_WIDTH = 120
"""Most characters of a plain line: the last comma-separated parts of a note that do not fit are omitted."""

Update = Callable[[int, int, str], None]
"""Called with the units done, the total (0 if unknown), and a note that is printed after them, unless the line before
had the same one."""


def emit(line: str) -> None:
    """Print a line to standard error, like the progress."""
    print(escape_controls(line), file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, unit: str, quiet: bool = False) -> Iterator[Update]:
    """Show the progress of a block. The block calls the yielded function to update it. unit: plural noun."""
    if quiet:
        yield lambda _done, _total, _note: None
    elif sys.stderr.isatty():
        with _bar(title) as update:
            yield update
    else:
        yield _Lines(title, unit)


def count_units(update: Update, total: int) -> Callable[[int], None]:
    """Make a function that adds up the units of a job, for jobs that report increments. total: 0 if unknown."""
    done = 0

    def advance(units: int) -> None:
        nonlocal done
        done += units
        update(done, total, "")

    return advance


def count_steps(update: Update, total: int) -> Callable[[str], None]:
    """Make a function that counts the steps of a job. It is called with each step's name, and "" after the last."""
    done = 0

    def step(name: str) -> None:
        nonlocal done
        update(done if name else total, total, name)
        done += 1

    return step


def add_speed(update: Update) -> Callable[[int, int, int], None]:
    """Make a function that adds units per second. It is called with units done, total, and units done before."""
    began = time.monotonic()

    def show(done: int, total: int, before: int) -> None:
        speed = (done - before) / max(time.monotonic() - began, 1e-9)
        update(done, total, f"{speed:,.0f} per second" if done > before else "")

    return show


@contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    description, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = description, BarColumn(BAR_WIDTH), MofNCompleteColumn(), TimeRemainingColumn(), note
    console = Console(stderr=True)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, note="")

        def show(done: int, total: int, note: str) -> None:
            others = f"{title} {total}/{total} 0:00:00 "
            fitting = _fit("", note, console.width - BAR_WIDTH - len(others) - 1)
            bar.update(task, completed=done, total=total or None, note=fitting)

        yield show


class _Lines:
    """Printer of plain lines, at growing intervals. A note of the first call, and the end, are printed at once."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._began = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None  # time and units of the first call
        self._note = ""

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        at_once = (bool(note) and self._first is None) or 0 < total <= done
        first_time, first_done = self._first = self._first or (now, done)
        least_s, most_s = PLAIN_SECONDS
        if not at_once and now - self._last < min(max(least_s, (now - self._began) / 20), most_s):
            return
        self._last = now
        rate = (done - first_done) / max(now - first_time, 1e-9)
        count = f"of {total:,} {self._unit} ({100 * done / total:.0f} %)" if total else self._unit
        left = [f"{format_duration((total - done) / rate)} left"] if rate > 0 and done < total else []
        line = ", ".join([f"{self._title}: {done:,} {count}", *left])
        emit(_fit(line, note if note != self._note else "", LINE_WIDTH))
        self._note = note


def _fit(line: str, note: str, width: int) -> str:
    """Append a note to a line, without the last parts that would not fit; its first part is always kept."""
    first, *others = note.split(", ")
    line = ", ".join(filter(None, (line, first)))
    for part in others:
        if len(line) + len(part) + 2 > width:
            break
        line = f"{line}, {part}"
    return line
