"""Progress of a long job on standard error: a bar on a terminal, otherwise a plain line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pipeline.runtime.text import escape_controls, format_duration

PLAIN_SECONDS = 5.0, 60.0
"""Seconds between two plain lines: at the start, and at most."""
BAR_WIDTH = 20
LINE_WIDTH = 120
"""Most characters of a plain line: the last comma-separated parts of a note that do not fit are omitted."""


class Update(Protocol):
    """Function that shows the units done, the total (0 if unknown), and a note, unless the line before had the same.

    before: units done before the start of the job, by an interrupted one. None: those of the first call.
    """

    def __call__(self, done: int, total: int, note: str, before: int | None = None, /) -> None:
        """Show them."""


def emit(line: str) -> None:
    """Print a line to standard error, like the progress."""
    print(escape_controls(line), file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, unit: str, quiet: bool = False) -> Iterator[Update]:
    """Show the progress of a block. The block calls the yielded function to update it. unit: plural noun."""
    if quiet:
        yield lambda _done, _total, _note, _before=None: None
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
        update(done, total, f"{speed:,.0f} per second" if done > before else "", before)

    return show


@contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    texts = [TextColumn(f"{{task.{name}}}") for name in ("description", "fields[left]", "fields[note]")]
    columns = texts[0], BarColumn(BAR_WIDTH), MofNCompleteColumn(), *texts[1:]
    console, time_left = Console(stderr=True), _TimeLeft()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, note="", left="")

        def show(done: int, total: int, note: str, before: int | None = None) -> None:
            left = time_left.describe(done, total, before)
            others = f"{title} {total}/{total} {left} "
            fitting = _fit("", note, console.width - BAR_WIDTH - len(others) - 1)
            bar.update(task, completed=done, total=total or None, note=fitting, left=left)

        yield show


class _TimeLeft:
    """Estimate of the time left, from the units that this job has done itself.

    Without a number of units done before, the first call is the start. With it, the start of the job is: its first call
    may come late, and those of rows that are resumed, or that were computed together, come at once.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: tuple[float, int] | None = None  # time and units of the first call

    def describe(self, done: int, total: int, before: int | None) -> str:
        """Describe the time left, such as 34 s left; an empty text if it is not known, or the job has ended."""
        now = time.monotonic()
        self._first = self._first or (now, done)
        since, start = self._first if before is None else (self._began, before)
        rate = (done - start) / max(now - since, 1e-9)
        return f"{format_duration((total - done) / rate)} left" if rate > 0 and done < total else ""


class _Lines:
    """Printer of plain lines, at growing intervals. A note of the first call, and the end, are printed at once."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._began = self._last = time.monotonic()
        self._time_left, self._was_called = _TimeLeft(), False
        self._note = ""

    def __call__(self, done: int, total: int, note: str, before: int | None = None, /) -> None:
        now = time.monotonic()
        at_once = (bool(note) and not self._was_called) or 0 < total <= done
        self._was_called, left = True, self._time_left.describe(done, total, before)
        least_s, most_s = PLAIN_SECONDS
        if not at_once and now - self._last < min(max(least_s, (now - self._began) / 20), most_s):
            return
        self._last = now
        count = f"of {total:,} {self._unit} ({100 * done / total:.0f} %)" if total else self._unit
        line = ", ".join(filter(None, [f"{self._title}: {done:,} {count}", left]))
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
