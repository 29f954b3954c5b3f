"""Batches of one rank: promoters are collated block by block, and a block is sliced into steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.stream.reader import Window
from pipeline.stream.shuffle import partition
from pipeline.tokens.kmers import Ids, Numbers
from pipeline.tokens.padding import PAD_TO, pad_rows, padded_width


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
class _Bounds:
    """Bounds of a micro-batch in this rank's rows of a step. first_row: in the global batch."""

    start: int
    end: int
    first_row: int


@dataclass(frozen=True)
class RowAssignment:
    """A rank's rows of a global batch, ascending, and the bounds of its micro-batches. weights: 0 for filling rows."""

    rows: Numbers
    weights: npt.NDArray[np.float32]
    micro_batches: list[_Bounds]


def assign_rows(rank_slice: RankSlice, rows: int) -> RowAssignment:
    """Assign a rank its rows of a global batch. An empty micro-batch gets the next one's row, with weight 0."""
    per_rank = rank_slice.micro_batches
    bounds = partition(rows, rank_slice.ranks * per_rank).tolist()
    mine = range(rank_slice.rank * per_rank, (rank_slice.rank + 1) * per_rank)
    taken = [np.arange(bounds[number], max(bounds[number + 1], bounds[number] + 1)) for number in mine]
    weights = [np.full(len(t), float(bounds[n + 1] > bounds[n]), np.float32) for n, t in zip(mine, taken, strict=True)]
    ends = np.cumsum([0, *map(len, taken)]).tolist()
    micro_batches = [
        _Bounds(start, end, bounds[number]) for start, end, number in zip(ends, ends[1:], mine, strict=False)
    ]
    return RowAssignment(np.concatenate(taken), np.concatenate(weights), micro_batches)


@dataclass(frozen=True)
class Block:
    """This rank's rows of some global batches of `global_rows` promoters each, end to end.

    tokens: (batches x assigned rows, width of the widest batch), the others alike; position: of each promoter in the
    split; widths: (batches,); global_lengths: (batches, global_rows).
    """

    assignment: RowAssignment
    global_rows: int
    tokens: Ids
    lengths: Numbers
    expression: npt.NDArray[np.float32]
    id: Numbers
    weight: npt.NDArray[np.float32]
    position: Numbers
    widths: Numbers
    global_lengths: Numbers

    def steps(self, epoch: int, number: int, consumed: int) -> Iterator[Step]:
        """Slice the block into steps. number: of the first one; consumed: promoters of the epoch before it."""
        size = len(self.assignment.rows)
        for batch, width in enumerate(self.widths.tolist()):
            at = batch * size
            consumed += self.global_rows
            batches = []
            for bounds in self.assignment.micro_batches:
                rows = slice(at + bounds.start, at + bounds.end)
                batches.append(
                    Batch(
                        self.tokens[rows, :width],
                        self.lengths[rows],
                        self.expression[rows],
                        self.id[rows],
                        self.weight[rows],
                        bounds.first_row,
                        self.global_rows,
                        self.global_lengths[batch],
                    )
                )
            yield Step(epoch, number + batch, consumed, batches)


def collate(windows: Sequence[Window], assignment: RowAssignment, global_rows: int) -> Block:
    """Collate promoters, in their order, to a block: a whole number of global batches of `global_rows` each."""
    lengths = np.concatenate([window.lengths for window in windows])
    by_batch = lengths.reshape(-1, global_rows)
    batches = len(by_batch)
    mine = (np.arange(batches)[:, None] * global_rows + assignment.rows).ravel()
    taken = _select(windows, mine)
    return Block(
        assignment=assignment,
        global_rows=global_rows,
        tokens=_tokens(taken, padded_width(lengths)),
        lengths=lengths[mine],
        expression=np.concatenate([window.expression for window in taken]),
        id=np.concatenate([window.id for window in taken]),
        weight=np.tile(assignment.weights, batches),
        position=np.concatenate([window.position for window in taken]),
        widths=-(-by_batch.max(1) // PAD_TO) * PAD_TO,
        global_lengths=by_batch,
    )


def _select(windows: Sequence[Window], mine: Numbers) -> list[Window]:
    """Select the promoters number `mine`, ascending and numbered through all windows."""
    firsts = np.cumsum([0, *map(len, windows)])
    bounds = np.searchsorted(mine, firsts)
    return [
        window.rows(mine[start:end] - first)
        for window, first, start, end in zip(windows, firsts, bounds, bounds[1:], strict=False)
        if start < end
    ]


def _tokens(windows: Sequence[Window], width: int) -> Ids:
    """Pad the windows' promoters: (rows, width)."""
    blocks = []
    for window in windows:
        # A window has room for the width of its own longest promoter only; another window's may be longer.
        own_width = padded_width(window.lengths)
        rows = pad_rows(window.values, window.starts, window.lengths, own_width)
        blocks.append(rows if own_width == width else np.pad(rows, ((0, 0), (0, width - own_width))))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def split_off(windows: Sequence[Window], rows: int) -> tuple[list[Window], list[Window]]:
    """Split windows into their first `rows` promoters and the rest."""
    head: list[Window] = []
    tail: list[Window] = []
    for window in windows:
        if rows:
            head.append(window.rows(slice(rows)))
        if len(window) > rows:
            tail.append(window.rows(slice(rows, None)))
        rows = max(rows - len(window), 0)
    return head, tail
