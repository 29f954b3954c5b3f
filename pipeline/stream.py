"""Shards -> batches for one rank: each promoter exactly once an epoch, the same global batches on any number of ranks.

1. the order of the epoch (order.py) names windows of records;
2. a background thread reads the windows, checks their hashes and keeps a few ahead;
3. each window's promoters are taken in order, `global_batch` at a time;
4. a global batch is dealt out to ranks and micro-batches; every rank makes the same number of steps.

State is a position: (epoch, promoters consumed). Going on from it reads the window it lies in and no other.
Memory: at most AHEAD + 2 windows (about 25 MB each at k = 3 and flank 150) a rank.
"""

import math
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.index import Index
from pipeline.kmers import Ragged
from pipeline.order import EpochOrder, deal, epoch_order
from pipeline.record_reader import read_record
from pipeline.records import Record

AHEAD = 2
"""Windows read before they are needed."""
PAD_TO = 8
"""Widths are rounded up to a multiple of this many bases, so that few shapes occur."""


@dataclass(frozen=True)
class Batch:
    """Promoters of one micro-batch, padded with id 0 to the width of the whole global batch.

    tokens: (rows, width) ids, one a base; lengths: (rows,) bases; expression: (rows,) float32; id: (rows,) of the
    dataset; weight: (rows,) float32, 0 for a row that only fills an empty part; first_row: of this batch within
    the global batch; global_rows, global_lengths: promoters in the global batch, and the bases of each.
    """

    tokens: npt.NDArray[np.unsignedinteger]
    lengths: npt.NDArray[np.int64]
    expression: npt.NDArray[np.float32]
    id: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    first_row: int
    global_rows: int
    global_lengths: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """What one rank needs for one optimizer step. consumed: promoters of the epoch after it, over all ranks."""

    epoch: int
    number: int
    consumed: int
    micro_batches: list[Batch]


@dataclass(frozen=True)
class Part:
    """Which part of every global batch this process takes."""

    rank: int = 0
    ranks: int = 1
    micro_batches: int = 1
    """Micro-batches a step, the same on every rank."""


class Stream:
    """The batches of one split for one rank."""

    def __init__(
        self,
        folder: Path,
        index: Index,
        split: str,
        global_batch: int,
        part: Part,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if split not in index.splits:
            raise UserError(f"{folder}: the shards hold no split {split}; it has no rows in the dataset")
        self.split = split
        self.global_batch = global_batch
        self.part = part
        self.seed = seed
        self.shuffle = shuffle
        self.rows = index.rows(split)
        self._shard_rows = [[record.rows for record in shard.records] for shard in index.splits[split]]
        self._records = [
            (folder, shard, number) for shard in index.splits[split] for number in range(len(shard.records))
        ]

    def __len__(self) -> int:
        """Steps an epoch, the same on every rank."""
        return math.ceil(self.rows / self.global_batch)

    def epoch(self, epoch: int, consumed: int = 0) -> Iterator[Step]:
        """The steps of an epoch after its first `consumed` promoters."""
        order = epoch_order(self._shard_rows, self.seed, epoch, self.shuffle)
        batches = _global_batches(self._windows(order, consumed), self.global_batch)
        number = consumed // self.global_batch
        for rows in batches:
            consumed += len(rows)
            yield Step(epoch, number, consumed, _deal_out(rows, self.part))
            number += 1

    def _windows(self, order: EpochOrder, consumed: int) -> Iterator["_Rows"]:
        """The windows of an epoch from promoter `consumed` on, read by a background thread."""
        ready: queue.Queue[_Rows | BaseException | None] = queue.Queue(AHEAD)
        stop = threading.Event()

        def read() -> None:
            try:
                if consumed < order.rows:
                    first = order.window_of(consumed)
                    for window in range(first, order.windows):
                        skip = consumed - int(order.starts[first]) if window == first else 0
                        if not _put(ready, self._read_window(order, window, skip), stop):
                            return
                _put(ready, None, stop)
            except BaseException as error:
                _put(ready, error, stop)

        thread = threading.Thread(target=read, name=f"stream {self.split}", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def _read_window(self, order: EpochOrder, window: int, skip: int) -> "_Rows":
        records = [read_record(*self._records[number]) for number in order.window_records(window)]
        offsets = [record.tokens.offsets[1:] for record in records]
        firsts = np.cumsum([0, *(int(record.tokens.offsets[-1]) for record in records)])
        tokens = Ragged(
            np.concatenate([record.tokens.values for record in records]),
            np.concatenate([[0], *(first + ends for first, ends in zip(firsts, offsets, strict=False))]),
        )
        whole = Record(
            tokens,
            np.concatenate([record.expression for record in records]),
            np.concatenate([record.id for record in records]),
        )
        return _Rows([(whole, order.window_rows(window)[skip:])])


@dataclass(frozen=True)
class _Rows:
    """Promoters in order, as picks from blocks that stay where they are."""

    pieces: list[tuple[Record, npt.NDArray[np.int64]]]

    def __len__(self) -> int:
        return sum(len(picks) for _, picks in self.pieces)

    def lengths(self) -> npt.NDArray[np.int64]:
        return np.concatenate([np.diff(block.tokens.offsets)[picks] for block, picks in self.pieces])

    def split_at(self, rows: int) -> tuple["_Rows", "_Rows"]:
        """The first `rows` promoters, and the rest."""
        head: list[tuple[Record, npt.NDArray[np.int64]]] = []
        tail: list[tuple[Record, npt.NDArray[np.int64]]] = []
        for block, picks in self.pieces:
            if rows:
                head.append((block, picks[:rows]))
            if len(picks) > rows:
                tail.append((block, picks[rows:]))
            rows = max(rows - len(picks), 0)
        return _Rows(head), _Rows(tail)


def _global_batches(windows: Iterator[_Rows], size: int) -> Iterator[_Rows]:
    """Cut windows into batches of `size`, the last one shorter."""
    waiting = _Rows([])
    for window in windows:
        waiting = _Rows(waiting.pieces + window.pieces)
        while len(waiting) >= size:
            batch, waiting = waiting.split_at(size)
            yield batch
    if len(waiting):
        yield waiting


def _deal_out(rows: _Rows, part: Part) -> list[Batch]:
    """This rank's micro-batches of a global batch. An empty part gets one row of weight 0."""
    lengths = rows.lengths()
    bounds = deal(len(rows), part.ranks * part.micro_batches)
    mine = range(part.rank * part.micro_batches, (part.rank + 1) * part.micro_batches)
    batches = []
    for number in mine:
        first, end = int(bounds[number]), int(bounds[number + 1])
        empty = first == end
        piece = rows.split_at(1)[0] if empty else rows.split_at(end)[0].split_at(first)[1]
        weight = np.full(len(piece), 0.0 if empty else 1.0, np.float32)
        batches.append(
            Batch(
                tokens=np.concatenate([padded_tokens(block.tokens, picks, lengths) for block, picks in piece.pieces]),
                lengths=piece.lengths(),
                expression=np.concatenate([block.expression[picks] for block, picks in piece.pieces]),
                id=np.concatenate([block.id[picks] for block, picks in piece.pieces]),
                weight=weight,
                first_row=0 if empty else first,
                global_rows=len(rows),
                global_lengths=lengths,
            )
        )
    return batches


def padded_width(lengths: npt.NDArray[np.int64]) -> int:
    """The longest, rounded up to a multiple of PAD_TO."""
    return -(-int(lengths.max()) // PAD_TO) * PAD_TO


def padded_tokens(
    tokens: Ragged, picks: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.unsignedinteger]:
    """Rows of ids side by side, 0 past each one's end: (len(picks), padded_width(lengths)).

    lengths: of all rows that are to get the same width.
    """
    width = padded_width(lengths)
    starts = tokens.offsets[picks]
    lengths = tokens.offsets[picks + 1] - starts
    columns = np.arange(width)
    if not len(tokens.values):
        return np.zeros((len(picks), width), tokens.values.dtype)
    # Reads past a row's end, into the next one, and blanks that out: quicker than picking the inside.
    block: npt.NDArray[np.unsignedinteger] = np.take(
        tokens.values, np.minimum(starts[:, None] + columns, len(tokens.values) - 1)
    )
    block[columns >= lengths[:, None]] = 0
    return block


def _put(
    ready: "queue.Queue[_Rows | BaseException | None]",
    item: "_Rows | BaseException | None",
    stop: threading.Event,
) -> bool:
    """Wait for a place; False when the reader has gone."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
