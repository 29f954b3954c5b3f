"""Batches of one rank: promoters are collated in blocks, and a block is sliced into steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.stream.reader import LABEL_BITS, Rows, compute_facts
from pipeline.stream.shuffle import partition
from pipeline.tokens.kmers import Ids, Numbers
from pipeline.tokens.padding import PAD_TO
from pipeline.tokens.reverse_complement import reverse_complement

Strands = Callable[[Numbers], npt.NDArray[np.bool_]]
"""Positions in the split, (n,) int64 -> whether each promoter is read from the other strand, (n,) bool."""
Arrays = tuple[Ids, Numbers, npt.NDArray[np.float32]]
"""Tokens, numbers and expression of promoters, see Window."""


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

    @property
    def range(self) -> tuple[int, int]:
        """Return the first row and the end of the rows."""
        return int(self.rows[0]), int(self.rows[-1]) + 1


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


@dataclass(frozen=True)
class Block:
    """Promoters of one rank for some steps, step by step: tokens, lengths, id and expression as in Batch."""

    assignment: RowAssignment
    global_rows: int
    tokens: Ids
    lengths: Numbers
    id: Numbers
    expression: npt.NDArray[np.float32]

    def own_facts(self) -> Numbers:
        """Compute the facts of the promoters of this rank, without padding rows: (n,) int64."""
        facts = compute_facts(self.lengths, self.expression).reshape(-1, len(self.assignment.rows))
        return facts[:, self.assignment.weights > 0].ravel()

    def slice_steps(self, facts: Numbers) -> list[list[Batch]]:
        """Slice the micro-batches of each step. facts: (steps, global_rows), of all promoters of the global batches."""
        if self.expression.ndim == 1:
            lengths, values = facts, [self.global_rows] * len(facts)
        else:
            lengths, values = facts >> LABEL_BITS, (facts & ((1 << LABEL_BITS) - 1)).sum(1).tolist()
        widths = (-(-lengths.max(1) // PAD_TO) * PAD_TO).tolist()
        return [
            [self._slice(step, part, first_row, widths[step], lengths[step], values[step]) for part, first_row in parts]
            for step, parts in enumerate([self.assignment.micro_batches] * len(facts))
        ]

    def _slice(self, step: int, part: slice, first_row: int, width: int, lengths: Numbers, values: int) -> Batch:
        first = step * len(self.assignment.rows)
        rows = slice(first + part.start, first + part.stop)
        tokens = self.tokens[rows, :width]
        if tokens.shape[1] < width:  # another rank has the longest promoter
            tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
        return Batch(
            tokens=tokens,
            lengths=self.lengths[rows],
            expression=self.expression[rows],
            id=self.id[rows],
            weight=self.assignment.weights[part],
            first_row=first_row,
            global_rows=self.global_rows,
            global_lengths=lengths,
            global_values=values,
        )


def collate(
    lanes: Sequence[Sequence[Rows]],
    assignment: RowAssignment,
    global_rows: int,
    steps: int,
    k: int,
    strands: Strands | None = None,
) -> Block:
    """Collate the promoters of a rank for some steps.

    lanes: per lane, in the order of its columns, the same number of promoters for each step; strands: promoters to read
    from the other strand, none by default.
    """
    tokens, numbers, expression = _join_lanes(lanes, steps)
    if len(assignment.rows) != len(numbers) // steps:  # an empty micro-batch has the row of another one
        first = np.arange(steps)[:, None] * (len(numbers) // steps) - assignment.rows[0]
        rows = (first + assignment.rows).ravel()
        tokens, numbers, expression = tokens[rows], numbers[rows], expression[rows]
    lengths, ids, positions = np.ascontiguousarray(numbers.T)
    if strands is not None:
        turned = np.flatnonzero(strands(positions))
        tokens[turned] = reverse_complement(tokens[turned], lengths[turned], k)
    return Block(assignment, global_rows, tokens, lengths, ids, expression)


def _join_lanes(lanes: Sequence[Sequence[Rows]], steps: int) -> Arrays:
    """Join the promoters of lanes step by step. A single window is not copied."""
    if len(lanes) == len(lanes[0]) == 1:
        return lanes[0][0].arrays
    columns = np.cumsum([0, *(sum(map(len, parts)) // steps for parts in lanes)]).tolist()
    widths = {part.window.tokens.shape[1] for parts in lanes for part in parts}
    first, shape = lanes[0][0].window, (steps, columns[-1])
    tokens = (np.empty if len(widths) == 1 else np.zeros)((*shape, max(widths)), first.tokens.dtype)
    numbers = np.empty((*shape, first.numbers.shape[1]), np.int64)
    expression = np.empty((*shape, *first.expression.shape[1:]), np.float32)
    for parts, begin, end in zip(lanes, columns, columns[1:], strict=False):
        row = 0
        for part in parts:
            own_tokens, own_numbers, own_expression = part.arrays
            _fill(tokens[:, begin:end, : own_tokens.shape[1]], row, own_tokens)
            _fill(numbers[:, begin:end], row, own_numbers)
            _fill(expression[:, begin:end], row, own_expression)
            row += len(part)
    rows = steps * columns[-1]
    return tokens.reshape(rows, -1), numbers.reshape(rows, -1), expression.reshape(rows, *expression.shape[2:])


def _fill(joined: npt.NDArray[Any], row: int, part: npt.NDArray[Any]) -> None:
    """Fill the rows of a lane from number `row` on. joined: (steps, rows per step, ...); part: (n, ...)."""
    quota = joined.shape[1]
    step, column = divmod(row, quota)
    head = min(-column % quota, len(part))  # the rest of a step
    whole, tail = divmod(len(part) - head, quota)
    body = part[head : len(part) - tail]
    joined[step, column : column + head] = part[:head]
    step += column > 0
    joined[step : step + whole] = body.reshape(whole, quota, *part.shape[1:])
    if tail:
        joined[step + whole, :tail] = part[len(part) - tail :]
