"""Batches of one rank: promoters are collated in blocks, and a block is sliced into steps."""

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
"""Positions in the split, (n,) int64 -> whether each promoter is read from the other strand, (n,) bool."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch, padded with id 0 to the width of the global batch.

    tokens: (rows, width) ids, one per base, uint8, uint16 or uint32; lengths: (rows,) int64, bases; expression:
    float32, (rows,) or (rows, labels) for several labels, NaN without a label; id: (rows,) int64, of the dataset;
    weight: (rows,) float32, 0 for a padding row; first_row: index of the first row in the global batch; global_rows:
    promoters in the global batch; global_lengths: (global_rows,) int64, their bases; global_values: labels in the
    global batch, without missing ones if there are several per promoter. The arrays are views into larger arrays that
    hold several steps.
    """

    tokens: Ids
    lengths: Numbers
    expression: npt.NDArray[np.float32]
    id: Numbers
    weight: npt.NDArray[np.float32]
    first_row: int
    global_rows: int
    global_lengths: Numbers
    global_values: int


@dataclass(frozen=True)
class Step:
    """Micro-batches of one rank for one optimizer step.

    number: of the step in its epoch, from 0; consumed: promoters of the epoch up to this step, over all ranks.
    """

    epoch: int
    number: int
    consumed: int
    micro_batches: list[Batch]


@dataclass(frozen=True)
class RankSlice:
    """Slice of every global batch that one rank takes."""

    rank: int = 0
    ranks: int = 1
    micro_batches: int = 1
    """Micro-batches per step, the same on every rank."""


@dataclass(frozen=True)
class RowAssignment:
    """Rows of a global batch that one rank takes.

    rows: (n,) int64, ascending; weights: (n,) float32, 0 for a padding row;
    micro_batches: per micro-batch its slice of `rows`, and the index of its first row in the global batch.
    """

    rows: Numbers
    weights: npt.NDArray[np.float32]
    micro_batches: list[tuple[slice, int]]


def assign_rows(rank_slice: RankSlice, rows: int) -> RowAssignment:
    """Assign the rows of a global batch to a rank. An empty micro-batch gets the row of the next one, with weight 0."""
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
    """Collate promoters, in their order, into the micro-batches of a rank. Returns them by step.

    windows: together a whole number of global batches of `global_rows` promoters; strands: promoters to read from the
    other strand, none by default. Their tokens: (rows, width), see Batch.
    """
    lengths = np.concatenate([window.lengths for window in windows])
    by_step = lengths.reshape(-1, global_rows)
    own_rows = (np.arange(len(by_step))[:, None] * global_rows + assignment.rows).ravel()
    starts = np.cumsum([0, *map(len, windows)])
    bounds = np.searchsorted(own_rows, starts)
    selected = [
        window.rows(own_rows[first:end] - start)
        for window, start, first, end in zip(windows, starts, bounds, bounds[1:], strict=False)
        if first < end
    ]
    padded = [_pad_window(window, round_up_width(lengths), k, strands) for window in selected]
    tokens = padded[0] if len(padded) == 1 else np.concatenate(padded)  # most blocks need only one window
    own_lengths = lengths[own_rows]
    expression = np.concatenate([window.expression for window in selected])
    ids = np.concatenate([window.id for window in selected])
    values = _count_values(windows, len(by_step))

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
            global_values=values[step],
        )

    return [[micro_batch(step, *bounds) for bounds in assignment.micro_batches] for step in range(len(by_step))]


def _count_values(windows: Sequence[Window], steps: int) -> list[int]:
    """Count the labels of each step, over all ranks: promoters, or present values if a promoter has several labels."""
    if windows[0].expression.ndim == 1:
        return [sum(map(len, windows)) // steps] * steps
    present = np.concatenate([np.isfinite(window.expression).sum(1) for window in windows])
    counts: list[int] = present.reshape(steps, -1).sum(1).tolist()
    return counts


def _pad_window(window: Window, width: int, k: int, strands: Strands | None) -> Ids:
    """Pad the promoters of a window: (rows, width) ids."""
    # A window has space for the width of its own longest promoter; another window may have a longer one.
    own_width = round_up_width(window.lengths)
    tokens = pad_rows(window.values, window.starts, window.lengths, own_width)
    if strands is not None:
        rows = np.flatnonzero(strands(window.position))
        tokens[rows] = reverse_complement(tokens[rows], window.lengths[rows], k)
    return tokens if own_width == width else np.pad(tokens, ((0, 0), (0, width - own_width)))


def split_windows(windows: Sequence[Window], rows: int) -> tuple[list[Window], list[Window]]:
    """Split windows after their first `rows` promoters. Returns the windows before and after."""
    starts = [0, *accumulate(map(len, windows))]
    head = [window.rows(slice(rows - start)) for window, start in zip(windows, starts, strict=False) if start < rows]
    tail = [
        window.rows(slice(max(rows - start, 0), None))
        for window, start, end in zip(windows, starts, starts[1:], strict=False)
        if end > rows
    ]
    return head, tail
