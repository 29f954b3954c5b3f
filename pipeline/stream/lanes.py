"""Reading of the lanes of one rank: its columns of every global batch, in order, window by window."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from pipeline.stream.reader import RecordReader, Rows
from pipeline.stream.shuffle import EpochOrder, Lane
from pipeline.tokens.kmers import Numbers

Range = tuple[int, int]
"""First and end."""


@dataclass(frozen=True)
class LaneSlice:
    """Promoters of a lane that a rank takes.

    done: promoters of the lane that were read before; steps: whole global batches after them; columns: range within the
    `lane.quota` promoters of each of these; tail: range within the promoters after the last whole global batch;
    reads_all: whether the rank reads all windows, to know the lengths of all promoters.
    """

    lane: Lane
    done: int
    steps: int
    columns: Range
    tail: Range
    reads_all: bool

    def select(self, window: int) -> Numbers:
        """Select the promoters of a window that the rank takes: (n,) int64, numbers in the window, ascending."""
        start, end = self.lane.starts[window : window + 2].tolist()
        first, end, quota = max(start, self.done) - self.done, end - self.done, self.lane.quota
        body = self.steps * quota
        body_end = min(end, body)
        own = (np.arange(first // quota, -(-body_end // quota))[:, None] * quota + np.arange(*self.columns)).ravel()
        own = own[np.searchsorted(own, first) : np.searchsorted(own, body_end)]
        tail = body + np.arange(max(first - body, self.tail[0]), min(end - body, self.tail[1]))
        selected: Numbers = np.concatenate([own, tail]) + (self.done - start)
        return selected

    def windows(self) -> range:
        """List the windows from the first one with promoters of the rank; later ones may have none."""
        whole, tail = self.columns[0] < self.columns[1], self.tail[0] < self.tail[1]
        if not (whole or tail or self.reads_all):
            return range(0)
        first = self.done if whole or self.reads_all else self.done + self.steps * self.lane.quota
        return range(self.lane.find_window(first), len(self.lane.windows) - 1)


def slice_lanes(order: EpochOrder, consumed: int, own: Range, own_tail: Range, reads_all: bool) -> list[LaneSlice]:
    """Slice the lanes of an epoch after its first `consumed` promoters. Lanes that the rank does not need are left out.

    own, own_tail: rows that the rank takes of a whole global batch, and of the short last one.
    """
    slices = []
    size, last = int(order.bounds[-1]), order.lanes - 1
    for number in range(order.lanes):
        begin, end = order.bounds[number : number + 2].tolist()
        columns = max(own[0] - begin, 0), min(own[1], end) - begin
        tail = own_tail if number == last else (0, 0)
        if columns[0] < columns[1] or tail[0] < tail[1] or reads_all:
            # A single lane can resume within a global batch, as its order does not depend on the global batch.
            done = consumed if last == 0 else consumed // size * (end - begin)
            steps = (order.rows - consumed) // size
            columns = columns if columns[0] < columns[1] else (0, 0)
            slices.append(LaneSlice(order.lane(number), done, steps, columns, tail, reads_all))
    return slices


class LaneReader:
    """Reader of a slice of a lane. Each method continues where its last call ended."""

    def __init__(self, part: LaneSlice, reader: RecordReader) -> None:
        self.part, self._reader = part, reader
        self._windows = iter(part.windows())
        self._own: deque[Rows] = deque()
        self._facts: list[Numbers] = []

    def take(self, steps: int, is_tail: bool) -> list[Rows]:
        """Take the promoters of the rank for the next steps, or for the short last global batch."""
        first, end = self.part.tail if is_tail else self.part.columns
        missing = steps * (end - first)
        taken: list[Rows] = []
        while missing:
            while not self._own:
                self._read()
            rows = self._own.popleft()
            if len(rows) > missing:
                rows, rest = rows.split(missing)
                self._own.appendleft(rest)
            taken.append(rows)
            missing -= len(rows)
        return taken

    def take_facts(self, steps: int, is_tail: bool) -> Numbers:
        """Take the facts of all promoters of the lane for the next steps: (n,) int64, see RecordReader.read_window."""
        lane = self.part.lane
        body = self.part.done + self.part.steps * lane.quota
        rows = len(lane) - body if is_tail else steps * lane.quota
        while sum(map(len, self._facts)) < rows:
            self._read()
        facts = np.concatenate([np.empty(0, np.int64), *self._facts])
        self._facts = [facts[rows:]]
        return facts[:rows]

    def _read(self) -> None:
        """Read the next window."""
        lane, window = self.part.lane, next(self._windows)
        picks = self.part.select(window)
        if not len(picks) and not self.part.reads_all:
            return
        rows = lane.window_rows(window)
        own, facts = self._reader.read_window(lane.window_pieces(window), rows[picks])
        if len(own):
            self._own.append(Rows(own, 0, len(own)))
        if self.part.reads_all:
            self._facts.append(facts[rows[max(self.part.done - int(lane.starts[window]), 0) :]])


def list_upcoming(slices: list[LaneSlice]) -> Numbers:
    """List the records of a rank in reading order: (n, 3) int64, step, shard, and record of the shard."""
    parts = [np.empty((0, 3), np.int64)]
    for part in slices:
        lane, windows = part.lane, part.windows()
        if not windows:
            continue
        pieces = lane.pieces[lane.windows[windows.start] :]
        counts = np.diff(lane.windows[windows.start :])
        steps = np.maximum(lane.starts[windows.start : -1] - part.done, 0) // lane.quota
        parts.append(np.column_stack([np.repeat(steps, counts), pieces[:, :2]]))
    upcoming = np.concatenate(parts)
    return upcoming[np.argsort(upcoming[:, 0], kind="stable")]
