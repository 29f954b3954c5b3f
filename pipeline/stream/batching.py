"""Batches of one rank: promoters are collated block by block, and a block is sliced into steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from pipeline.stream.reader import Window
from pipeline.stream.shuffle import partition
from pipeline.tokens.kmers import Ids, Numbers
from pipeline.tokens.padding import pad_rows, round_up_width
from pipeline.tokens.reverse_complement import reverse_complement

Strands = Callable[[Numbers], npt.NDArray[np.bool_]]
"""Positions in the split -> whether each is read from the other strand."""


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


def collate(
    windows: Sequence[Window], assignment: RowAssignment, global_rows: int, k: int, strands: Strands | None = None
) -> list[list[Batch]]:
    """Collate promoters, in their order, to the micro-batches of some steps.

    windows: hold a whole number of global batches of `global_rows` each, end to end.
    """
    lengths = np.concatenate([window.lengths for window in windows])
    by_step = lengths.reshape(-1, global_rows)
    mine = (np.arange(len(by_step))[:, None] * global_rows + assignment.rows).ravel()
    starts = np.cumsum([0, *map(len, windows)])
    bounds = np.searchsorted(mine, starts)
    selected = [
        window.rows(mine[first:end] - start)
        for window, start, first, end in zip(windows, starts, bounds, bounds[1:], strict=False)
        if first < end
    ]
    padded = [_pad_window(window, round_up_width(lengths), k, strands) for window in selected]
    tokens = padded[0] if len(padded) == 1 else np.concatenate(padded)  # most blocks are of one window
    own_lengths = lengths[mine]
    expression = np.concatenate([window.expression for window in selected])
    ids = np.concatenate([window.id for window in selected])

    def micro_batch(step: int, part: slice, first_row: int) -> Batch:
        first = step * len(assignment.rows)
        rows, width = slice(first + part.start, first + part.stop), round_up_width(by_step[step])
        return Batch(
            tokens=tokens[rows, :width],
            lengths=own_lengths[rows],
            expression=expression[rows],
            id=ids[rows],
            weight=assignment.weights[part],
            first_row=first_row,
            global_rows=global_rows,
            global_lengths=by_step[step],
        )

    return [[micro_batch(step, *bounds) for bounds in assignment.micro_batches] for step in range(len(by_step))]


def _pad_window(window: Window, width: int, k: int, strands: Strands | None) -> Ids:
    """Pad a window's promoters: (rows, width)."""
    # A window has room for the width of its own longest promoter only; another window's may be longer.
    own_width = round_up_width(window.lengths)
    tokens = pad_rows(window.values, window.starts, window.lengths, own_width)
    if strands is not None:
        rows = np.flatnonzero(strands(window.position))
        tokens[rows] = reverse_complement(tokens[rows], window.lengths[rows], k)
    return tokens if own_width == width else np.pad(tokens, ((0, 0), (0, width - own_width)))


def split_windows(windows: Sequence[Window], rows: int) -> tuple[list[Window], list[Window]]:
    """Split windows into their first `rows` promoters and the rest."""
    starts = [0, *accumulate(map(len, windows))]
    head = [window.rows(slice(rows - start)) for window, start in zip(windows, starts, strict=False) if start < rows]
    tail = [
        window.rows(slice(max(rows - start, 0), None))
        for window, start, end in zip(windows, starts, starts[1:], strict=False)
        if end > rows
    ]
    return head, tail
