"""How far a long job is: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_SECONDS = 5.0, 60.0
"""Time between two plain lines: at first, and at most as the work goes on."""

Update = Callable[[int, int, str], None]
"""Called with units done, units in all (0 where that is not known), and a few words to stand behind."""


def tell(line: str) -> None:
    """A line on standard error, where progress is shown."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, unit: str, quiet: bool = False) -> Iterator[Update]:
    """Shows progress on standard error."""
    if quiet:
        yield lambda _done, _total, _note: None
    elif sys.stderr.isatty():
        with _bar(title) as update:
            yield update
    else:
        yield _plain(title, unit)


def counting(update: Update, total: int) -> Callable[[int], None]:
    """For work that tells how much more it did: adds it up for `update`. total: 0 where it is not known."""
    done = 0

    def more(units: int) -> None:
        nonlocal done
        done += units
        update(done, total, "")

    return more


def with_speed(update: Update) -> Callable[[int, int, int], None]:
    """For work that tells units done, units in all, and how many of those done were there before: shows the units
    made a second."""
    began = time.monotonic()

    def show(done: int, total: int, found: int) -> None:
        made = done - found
        update(done, total, f"{made / max(time.monotonic() - began, 1e-9):,.0f} a second" if made else "")

    return show


def naming(update: Update, total: int) -> Callable[[str], None]:
    """For work in `total` steps that tells the name of each before it begins, and "" when all are done."""
    done = 0

    def step(what: str) -> None:
        nonlocal done
        update(total if not what else done, total, what)
        done += 1

    return step


def with_rates(update: Update) -> Callable[[int, int, int], None]:
    """For work that tells units done, units in all, and bytes made: shows units and MB a second since the start."""
    began = time.monotonic()
    first: int | None = None

    def show(done: int, total: int, size: int) -> None:
        nonlocal first
        first = done if first is None else first
        seconds = time.monotonic() - began
        rates = f"{(done - first) / seconds:,.0f} a second, {size / 1e6 / seconds:,.0f} MB/s" if size else ""
        update(done, total, rates)

    return show


@contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total or None, note=note)

        yield update


def _plain(title: str, unit: str) -> Update:
    began = time.monotonic()
    last = began
    first_done = 0
    first_call = True

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal last, first_done, first_call
        now = time.monotonic()
        if first_call:
            first_done = done
        at_start = first_call and bool(note)
        first_call = False
        waited_enough = now - last >= min(max(PLAIN_SECONDS[0], (now - began) / 20), PLAIN_SECONDS[1])
        if not at_start and not waited_enough and (done < total or not total):
            return
        last = now
        rate = (done - first_done) / max(now - began, 1e-9)
        left = f", {(total - done) / rate:,.0f} s left" if rate > 0 and done < total else ""
        how_far = f"of {total:,} {unit} ({100 * done / total:.0f} %)" if total else unit
        print(f"{title}: {done:,} {how_far}{left} {note}".rstrip(), file=sys.stderr, flush=True)

    return update
