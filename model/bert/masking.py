"""Mask k-mers for the language model, as in BERT (Devlin et al. 2019): 80 % [MASK], 10 % random, 10 % unchanged.

The masks do not depend on how the global batch is split: the random numbers are drawn for the whole global batch, from
a generator seeded by the step, and each rank uses those of its rows. The k-mers of one reading frame do not overlap, so
adjacent tokens do not reveal a masked k-mer.
"""

import math
from dataclasses import dataclass

import torch

from pipeline.tokens.kmers import MASK, SPECIALS

HIDDEN, SWAPPED = 0.8, 0.1
"""Fractions of the tokens to predict that become [MASK], or a random k-mer. The others stay unchanged."""
IGNORED = -100
"""Label of a token that is not predicted; torch's cross-entropy ignores this value by default."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of each row of a global batch.

    frame: (rows,) int64, reading frame; select: (rows, columns) float32 in [0, 1), decides on masking; swap: (rows,
    columns) int64, ids of random k-mers.
    """

    frame: torch.Tensor
    select: torch.Tensor
    swap: torch.Tensor

    def slice_rows(self, first: int, rows: int) -> "Draws":
        """Take the random draws of `rows` rows, starting at row `first`."""
        part = slice(first, first + rows)
        return Draws(self.frame[part], self.select[part], self.swap[part])

    def select_rows(self, rows: torch.Tensor, columns: int) -> "Draws":
        """Take the first `columns` random draws of some rows. rows: (n,) int64 indices into the global batch."""
        select, swap = (values[:, :columns].index_select(0, rows) for values in (self.select, self.swap))
        return Draws(self.frame.index_select(0, rows), select, swap)


def draw(rows: int, columns: int, k: int, generator: torch.Generator) -> Draws:
    """Draw the random numbers of a global batch. columns: tokens per frame, [CLS] and [SEP] included."""
    device = generator.device
    return Draws(
        torch.randint(k, (rows,), generator=generator, device=device),
        torch.rand((rows, columns), generator=generator, device=device),
        torch.randint(len(SPECIALS), len(SPECIALS) + 5**k, (rows, columns), generator=generator, device=device),
    )


def find_masked_positions(labels: torch.Tensor, share: float) -> torch.Tensor:
    """Find the tokens to predict: int64 indices into the flattened labels (rows, columns), padded with zeros.

    The length of the result depends on the shape only, so the host does not wait for the device. It is eight standard
    deviations above the expected number of masked tokens, which one batch in 10^15 exceeds.
    """
    tokens = labels.numel()
    expected, deviation = share * tokens, math.sqrt(share * (1 - share) * tokens)
    size = min(math.ceil(expected + 8 * deviation), tokens)
    return torch.nonzero_static((labels != IGNORED).flatten(), size=size, fill_value=0)[:, 0]


def mask_kmers(
    input_ids: torch.Tensor, kmers: torch.Tensor, draws: Draws, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask a fraction `share` of the k-mers.

    input_ids: (rows, columns) int64; kmers: (rows,) number of k-mers after the [CLS]. Returns the ids that the model
    reads and the labels, both (rows, columns) int64. Labels are true ids of the k-mers to predict, IGNORED elsewhere.
    """
    position = torch.arange(input_ids.shape[1], device=input_ids.device)
    is_target = (position >= 1) & (position <= kmers[:, None]) & (draws.select < share)
    labels = torch.where(is_target, input_ids, IGNORED)
    action = draws.select / share
    masked = torch.where(is_target & (action < HIDDEN), MASK, input_ids)
    masked = torch.where(is_target & (action >= HIDDEN) & (action < HIDDEN + SWAPPED), draws.swap, masked)
    return masked, labels
