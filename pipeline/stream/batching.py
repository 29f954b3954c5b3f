"""Batches of one rank: promoters are collated block by block, and a block is sliced into steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from pipeline.stream.reader import Window
from pipeline.stream.shuffle import partition
from pipeline.tokens.kmers import Ids, Numbers
from pipeline.tokens.padding import pad_rows, padded_width


@dataclass(frozen=True)
class Batch:
    """One micro-batch, padded with id 0 to the width of the whole global batch.

    tokens: (rows, width) ids, one per base; lengths: (rows,) bases; expression: (rows,) float32; id: (rows,) of the
    dataset; weight: (rows,) float32, 0 for a row that only fills an empty micro-batch; first_row: of this batch within
    the global batch; global_rows, global_lengths: promoters in the global batch, and the bases of each.
    The arrays are views into those of a whole block of steps.
    """

    tokens: Ids
    lengths: Numbers
    expression: npt.NDArray[np.float32]
    id: Numbers
    weight: npt.NDArray[np.float32]
    first_row: int
    global_rows: int
    global_lengths: Numbers


@dataclass(frozen=True)
class Step:
    """The micro-batches of one rank for one optimizer step. consumed: promoters of the epoch after it, on all ranks."""

    epoch: int
    number: int
    consumed: int
    micro_batches: list[Batch]


@dataclass(frozen=True)
class RankSlice:
    """The part of every global batch that this rank takes."""

    rank: int = 0
    ranks: int = 1
    micro_batches: int = 1
    """Micro-batches per step, the same on every rank."""


@dataclass(frozen=True)
class RowAssignment:
    """A rank's rows of a global batch, ascending, and their weights: 0 for a row that fills an empty micro-batch.

    micro_batches: the slice of these rows that each takes, and the place of its first one in the global batch.
    """

    rows: Numbers
    weights: npt.NDArray[np.float32]
    micro_batches: list[tuple[slice, int]]


def assign_rows(rank_slice: RankSlice, rows: int) -> RowAssignment:
    """Assign a rank its rows of a global batch. An empty micro-batch gets the next one's row, with weight 0."""
    per_rank = rank_slice.micro_batches
    bounds = partition(rows, rank_slice.ranks * per_rank)[rank_slice.rank * per_rank :][: per_rank + 1]
    firsts, counts = bounds[:-1], np.diff(bounds)
    sizes = np.maximum(counts, 1)
    ends = np.cumsum(sizes)
    parts = [slice(end - size, end) for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)]
    return RowAssignment(
        rows=np.arange(ends[-1]) + np.repeat(firsts - (ends - sizes), sizes),
        weights=np.repeat(counts > 0, sizes).astype(np.float32),
        micro_batches=list(zip(parts, firsts.tolist(), strict=True)),
    )


@dataclass(frozen=True)
class Block:
    """This rank's rows of some global batches of `global_rows` promoters each, end to end.

    tokens: (batches x assigned rows, width of the widest batch), the others alike; position: of each promoter in the
    split; global_lengths: (batches, global_rows).
    """

    assignment: RowAssignment
    global_rows: int
    tokens: Ids
    lengths: Numbers
    expression: npt.NDArray[np.float32]
    id: Numbers
    position: Numbers
    global_lengths: Numbers

    def steps(self, epoch: int, number: int, consumed: int) -> Iterator[Step]:
        """Slice the block into steps. number: of the first one; consumed: promoters of the epoch before it."""
        weights = self.assignment.weights
        for batch, lengths in enumerate(self.global_lengths):
            first, width = batch * len(weights), padded_width(lengths)
            batches = []
            for part, first_row in self.assignment.micro_batches:
                rows = slice(first + part.start, first + part.stop)
                batches.append(
                    Batch(
                        self.tokens[rows, :width],
                        self.lengths[rows],
                        self.expression[rows],
                        self.id[rows],
                        weights[part],
                        first_row,
                        self.global_rows,
                        lengths,
                    )
                )
            yield Step(epoch, number + batch, consumed + (batch + 1) * self.global_rows, batches)


def collate(windows: Sequence[Window], assignment: RowAssignment, global_rows: int) -> Block:
    """Collate promoters, in their order, to a block: a whole number of global batches of `global_rows` each."""
    lengths = np.concatenate([window.lengths for window in windows])
    by_batch = lengths.reshape(-1, global_rows)
    mine = (np.arange(len(by_batch))[:, None] * global_rows + assignment.rows).ravel()
    starts = np.cumsum([0, *map(len, windows)])
    bounds = np.searchsorted(mine, starts)
    selected = [
        window.rows(mine[first:end] - start)
        for window, start, first, end in zip(windows, starts, bounds, bounds[1:], strict=False)
        if first < end
    ]
    padded = [_pad_window(window, padded_width(lengths)) for window in selected]
    return Block(
        assignment=assignment,
        global_rows=global_rows,
        tokens=padded[0] if len(padded) == 1 else np.concatenate(padded),  # most blocks are of one window
        lengths=lengths[mine],
        expression=np.concatenate([window.expression for window in selected]),
        id=np.concatenate([window.id for window in selected]),
        position=np.concatenate([window.position for window in selected]),
        global_lengths=by_batch,
    )


def _pad_window(window: Window, width: int) -> Ids:
    """Pad a window's promoters: (rows, width)."""
    # A window has room for the width of its own longest promoter only; another window's may be longer.
    own_width = padded_width(window.lengths)
    rows = pad_rows(window.values, window.starts, window.lengths, own_width)
    return rows if own_width == width else np.pad(rows, ((0, 0), (0, width - own_width)))


def split_off(windows: Sequence[Window], rows: int) -> tuple[list[Window], list[Window]]:
    """Split windows into their first `rows` promoters and the rest."""
    starts = [0, *accumulate(map(len, windows))]
    head = [window.rows(slice(rows - start)) for window, start in zip(windows, starts, strict=False) if start < rows]
    tail = [
        window.rows(slice(max(rows - start, 0), None))
        for window, start, end in zip(windows, starts, starts[1:], strict=False)
        if end > rows
    ]
    return head, tail
