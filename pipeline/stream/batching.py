"""Promoters in order -> the steps of one rank: laid side by side a block at a time, then cut by slicing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.stream.reader import Window
from pipeline.stream.shuffle import deal
from pipeline.tokens.padding import PAD_TO, Ids, Numbers, padded_rows, padded_width


@dataclass(frozen=True)
class Batch:
    """Promoters of one micro-batch, padded with id 0 to the width of the whole global batch.

    tokens: (rows, width) ids, one a base; lengths: (rows,) bases; expression: (rows,) float32; id: (rows,) of the
    dataset; weight: (rows,) float32, 0 for a row that only fills an empty part; first_row: of this batch within
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


@dataclass(frozen=True)
class _Cut:
    """A micro-batch among this rank's rows of a step: rows start to end; first_row: in the global batch."""

    start: int
    end: int
    first_row: int


@dataclass(frozen=True)
class Share:
    """A rank's rows of a global batch, ascending, and how they make micro-batches. weights: 0 for rows that only
    fill."""

    rows: Numbers
    weights: npt.NDArray[np.float32]
    cuts: list[_Cut]


def share_of(part: Part, rows: int) -> Share:
    """What a rank takes of a global batch of `rows` promoters. An empty part gets the next one's row, with weight 0."""
    bounds = deal(rows, part.ranks * part.micro_batches).tolist()
    mine = range(part.rank * part.micro_batches, (part.rank + 1) * part.micro_batches)
    taken = [np.arange(bounds[number], max(bounds[number + 1], bounds[number] + 1)) for number in mine]
    weights = [np.full(len(t), float(bounds[n + 1] > bounds[n]), np.float32) for n, t in zip(mine, taken, strict=True)]
    ends = np.cumsum([0, *map(len, taken)]).tolist()
    cuts = [_Cut(start, end, bounds[number]) for start, end, number in zip(ends, ends[1:], mine, strict=False)]
    return Share(np.concatenate(taken), np.concatenate(weights), cuts)


@dataclass(frozen=True)
class Block:
    """This rank's rows of some global batches of `global_rows` promoters each, end to end.

    tokens: (batches x rows of the share, width of the widest batch); the like for the others; position: of each
    promoter in the split; widths: (batches,); global_lengths: (batches, global_rows).
    """

    share: Share
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
        """The steps of the block. number: of the first one; consumed: promoters of the epoch before it."""
        size = len(self.share.rows)
        for batch, width in enumerate(self.widths.tolist()):
            at = batch * size
            consumed += self.global_rows
            batches = []
            for cut in self.share.cuts:
                rows = slice(at + cut.start, at + cut.end)
                batches.append(
                    Batch(
                        self.tokens[rows, :width],
                        self.lengths[rows],
                        self.expression[rows],
                        self.id[rows],
                        self.weight[rows],
                        cut.first_row,
                        self.global_rows,
                        self.global_lengths[batch],
                    )
                )
            yield Step(epoch, number + batch, consumed, batches)


def lay_out(windows: Sequence[Window], share: Share, global_rows: int) -> Block:
    """The block of these promoters, in their order: a whole number of global batches of `global_rows` each."""
    lengths = np.concatenate([window.lengths for window in windows])
    by_batch = lengths.reshape(-1, global_rows)
    batches = len(by_batch)
    mine = (np.arange(batches)[:, None] * global_rows + share.rows).ravel()
    taken = _taken(windows, mine)
    return Block(
        share=share,
        global_rows=global_rows,
        tokens=_tokens(taken, padded_width(lengths)),
        lengths=lengths[mine],
        expression=np.concatenate([window.expression for window in taken]),
        id=np.concatenate([window.id for window in taken]),
        weight=np.tile(share.weights, batches),
        position=np.concatenate([window.position for window in taken]),
        widths=-(-by_batch.max(1) // PAD_TO) * PAD_TO,
        global_lengths=by_batch,
    )


def _taken(windows: Sequence[Window], mine: Numbers) -> list[Window]:
    """The promoters number `mine`, ascending and counted through all windows."""
    firsts = np.cumsum([0, *map(len, windows)])
    bounds = np.searchsorted(mine, firsts)
    return [
        window.rows(mine[start:end] - first)
        for window, first, start, end in zip(windows, firsts, bounds, bounds[1:], strict=False)
        if start < end
    ]


def _tokens(windows: Sequence[Window], width: int) -> Ids:
    """The windows' promoters side by side: (rows, width)."""
    found = []
    for window in windows:
        # Behind the last promoter of a window lies as much as its longest needs; another's may need more.
        own_width = padded_width(window.lengths)
        rows = padded_rows(window.values, window.starts, window.lengths, own_width)
        found.append(rows if own_width == width else np.pad(rows, ((0, 0), (0, width - own_width))))
    return found[0] if len(found) == 1 else np.concatenate(found)


def split_off(windows: Sequence[Window], rows: int) -> tuple[list[Window], list[Window]]:
    """The first `rows` promoters, and the rest."""
    head: list[Window] = []
    tail: list[Window] = []
    for window in windows:
        if rows:
            head.append(window.rows(slice(rows)))
        if len(window) > rows:
            tail.append(window.rows(slice(rows, None)))
        rows = max(rows - len(window), 0)
    return head, tail
