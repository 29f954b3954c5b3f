"""Cut a micro-batch into passes of rows of similar length, on the host, which knows all lengths.

Most promoters of an assay have one length, but a large batch is as wide as its longest promoter. So the rows of a
micro-batch are sorted by length and run through the model in a few passes, each with its own width. A pass whose
reading frames all fill the width needs no attention mask, which opens faster attention kernels. Losses are sums over
rows, so the gradient does not change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.bert.frames import choose_width, fills_width
from pipeline.tokens.kmers import Numbers

PASS_TOKENS = 4096
"""Cost of a pass in itself, in tokens: its 150 kernels take at least 0.4 ms, and a token about 90 ns on an H200."""
MASK_COST = {"cuda": 1.15}
"""Cost of a token with an attention mask, relative to one without: an estimate for an H200, by device; others: 1."""
ROW_STEP = 32
"""Rows per pass are a multiple of this number, except in the narrowest pass: fewer shapes."""


@dataclass(frozen=True)
class Pass:
    """Rows of a micro-batch that run through the model together.

    rows: (n,) int64, ascending indices into the micro-batch; None: all rows. width: bases. is_full: whether every
    reading frame of every row fills the width, so that attention needs no mask.
    """

    rows: Numbers | None
    width: int
    is_full: bool


@dataclass(frozen=True)
class ModelInput:
    """Input of a model. mode: see TOKEN_MODES; k: bases per token; frames: reading frames read per promoter."""

    mode: str
    k: int
    frames: int
    device: torch.device

    @property
    def mask_cost(self) -> float:
        """Return the cost of a token with an attention mask, relative to one without."""
        return MASK_COST.get(self.device.type, 1.0)

    def width(self, longest: int) -> int:
        """Return the width in bases for a longest promoter."""
        return choose_width(longest, self.mode, self.k, self.device)

    def is_full(self, shortest: int, width: int) -> bool:
        """Return whether all reading frames of promoters of at least `shortest` bases fill the width."""
        return fills_width(shortest, width, self.mode, self.k)

    def kind(self, length: int) -> int:
        """Return a number that orders promoters: the width, and of one width whether a mask is needed."""
        width = self.width(length)
        return 2 * width + (not self.is_full(length, width))

    def tokens(self, width: int) -> int:
        """Return the tokens per promoter."""
        return self.frames * (width // (1 if self.mode == "overlapping" else self.k) + 2)


def cut_by_length(lengths: Numbers, width: int, read: ModelInput) -> list[Pass]:
    """Cut a micro-batch into the passes of lowest cost: padded tokens, masks and the passes themselves.

    lengths: (rows,) int64 bases; width: of the global batch, in bases, used if the micro-batch is not worth a cut.
    """
    shortest, longest = int(lengths.min()), int(lengths.max())
    most = len(lengths) * (read.mask_cost * read.tokens(read.width(longest)) - read.tokens(read.width(shortest)))
    if most < PASS_TOKENS:
        return [Pass(None, width, read.is_full(shortest, width))]
    unique, inverse = np.unique(lengths, return_inverse=True)
    kinds = np.array([read.kind(length) for length in unique.tolist()])[inverse]
    # The first order is better for a few lengths of many rows, the second if some rows are shorter than the full ones.
    orders = [np.lexsort(keys) for keys in ((-kinds,), (-kinds, kinds % 2 == 0))]
    order, (_, passes) = min(
        ((order, _choose_segments(kinds[order], read)) for order in orders), key=lambda option: option[1][0]
    )
    if len(passes) == 1:
        return [Pass(None, width, read.is_full(shortest, width))]
    return [Pass(np.sort(order[first:end]), *_describe(kinds[order[first:end]])) for first, end in passes]


def join_rows(passes: Sequence[Pass]) -> slice | Numbers:
    """Join the rows of the passes of a micro-batch, as an index of its arrays."""
    rows = [one.rows for one in passes if one.rows is not None]
    return np.concatenate(rows) if rows else slice(None)


def _describe(kinds: Numbers) -> tuple[int, bool]:
    """Return width and is_full of a segment. kinds: (n,), of its rows."""
    widest = int(kinds.max())
    return widest // 2, widest % 2 == 0 and widest == int(kinds.min())


def _choose_segments(kinds: Numbers, read: ModelInput) -> tuple[float, list[tuple[int, int]]]:
    """Choose consecutive segments of lowest cost that cover all rows. kinds: (rows,), of the rows in their order.

    Returns the cost and the segments, as first row and end. A segment ends near a change of kind.
    """
    changes = np.flatnonzero(np.diff(kinds)) + 1
    ends = np.minimum(-(-changes // ROW_STEP) * ROW_STEP, len(kinds))
    bounds = sorted({0, *ends.tolist(), len(kinds)})
    best: list[tuple[float, list[tuple[int, int]]]] = [(0.0, [])]
    for number, end in enumerate(bounds[1:], 1):
        options = []
        for (cost, before), first in zip(best, bounds[:number], strict=True):
            width, is_full = _describe(kinds[first:end])
            own = (end - first) * read.tokens(width) * (1 if is_full else read.mask_cost) + PASS_TOKENS
            options.append((cost + own, [*before, (first, end)]))
        best.append(min(options))
    return best[-1]
