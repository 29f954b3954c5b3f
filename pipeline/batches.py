"""Promoters in order -> the steps of one rank: laid side by side a block at a time, then cut by slicing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.order import deal
from pipeline.padding import PAD_TO, Ids, Numbers, padded_rows, padded_width
from pipeline.windows import Window


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
class Piece:
    """Promoters of a window in the order of the epoch; picks: their numbers in the window."""

    window: Window
    picks: Numbers

    def __len__(self) -> int:
        return len(self.picks)


@dataclass(frozen=True)
class _Cut:
    """A micro-batch among this rank's rows of a step: rows start to end; first_row: in the global batch."""

    start: int
    end: int
    first_row: int


@dataclass(frozen=True)
class Share:
    """A rank's rows of a global batch, and how they make micro-batches. weights: 0 for rows that only fill."""

    rows: Numbers
    weights: npt.NDArray[np.float32]
    cuts: list[_Cut]


def share_of(part: Part, rows: int) -> Share:
    """What a rank takes of a global batch of `rows` promoters. An empty part gets the first row, with weight 0."""
    bounds = deal(rows, part.ranks * part.micro_batches).tolist()
    taken: list[Numbers] = []
    weights: list[npt.NDArray[np.float32]] = []
    cuts: list[_Cut] = []
    at = 0
    for number in range(part.rank * part.micro_batches, (part.rank + 1) * part.micro_batches):
        first, end = bounds[number], bounds[number + 1]
        empty = first == end
        mine = np.zeros(1, np.int64) if empty else np.arange(first, end)
        taken.append(mine)
        weights.append(np.full(len(mine), 0.0 if empty else 1.0, np.float32))
        cuts.append(_Cut(at, at + len(mine), 0 if empty else first))
        at += len(mine)
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


def lay_out(pieces: Sequence[Piece], share: Share, global_rows: int) -> Block:
    """The block of these promoters: a whole number of global batches of `global_rows` each."""
    lengths = np.concatenate([piece.window.lengths[piece.picks] for piece in pieces])
    by_batch = lengths.reshape(-1, global_rows)
    batches = len(by_batch)
    mine = (np.arange(batches)[:, None] * global_rows + share.rows).ravel()
    return Block(
        share=share,
        global_rows=global_rows,
        tokens=_tokens(pieces, mine),
        lengths=lengths[mine],
        expression=np.concatenate([piece.window.expression[piece.picks] for piece in pieces])[mine],
        id=np.concatenate([piece.window.id[piece.picks] for piece in pieces])[mine],
        weight=np.tile(share.weights, batches),
        position=np.concatenate([piece.window.position[piece.picks] for piece in pieces])[mine],
        widths=-(-by_batch.max(1) // PAD_TO) * PAD_TO,
        global_lengths=by_batch,
    )


def _tokens(pieces: Sequence[Piece], mine: Numbers) -> Ids:
    """Promoters number `mine` of the pieces side by side, as wide as the longest of all pieces asks for."""
    width = max(padded_width(piece.window.lengths[piece.picks]) for piece in pieces)
    if len(pieces) == 1:
        return _rows(pieces[0], mine, width)
    out = np.zeros((len(mine), width), pieces[0].window.values.dtype)
    first = 0
    for piece in pieces:
        inside = np.flatnonzero((mine >= first) & (mine < first + len(piece)))
        rows = _rows(piece, mine[inside] - first, padded_width(piece.window.lengths[piece.picks]))
        out[inside, : rows.shape[1]] = rows
        first += len(piece)
    return out


def _rows(piece: Piece, mine: Numbers, width: int) -> Ids:
    window, picks = piece.window, piece.picks[mine]
    return padded_rows(window.values, window.starts[picks], window.lengths[picks], width)


def split_off(pieces: Sequence[Piece], rows: int) -> tuple[list[Piece], list[Piece]]:
    """The first `rows` promoters, and the rest."""
    head: list[Piece] = []
    tail: list[Piece] = []
    for piece in pieces:
        if rows:
            head.append(Piece(piece.window, piece.picks[:rows]))
        if len(piece) > rows:
            tail.append(Piece(piece.window, piece.picks[rows:]))
        rows = max(rows - len(piece), 0)
    return head, tail
