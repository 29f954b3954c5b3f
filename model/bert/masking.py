"""Mask k-mers for the language model, 80/10/10, independently of how the global batch is split.

The random numbers are drawn for the whole global batch, from a generator seeded by the step. A rank uses those of its
rows. The k-mers of one reading frame do not overlap, so neighbours do not reveal a hidden k-mer.
"""

import math
from dataclasses import dataclass

import torch

from pipeline.tokens.kmers import MASK, SPECIALS

HIDDEN, SWAPPED = 0.8, 0.1
"""Shares of the tokens to predict: replaced by [MASK], replaced by a random k-mer. The rest stay."""
IGNORED = -100
"""Label of a token that is not predicted."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of each row of a global batch.

    frame: (rows,) int64; select: (rows, columns) float32 in [0, 1); swap: (rows, columns) int64 k-mer ids.
    """

    frame: torch.Tensor
    select: torch.Tensor
    swap: torch.Tensor

    def part(self, first: int, rows: int) -> "Draws":
        """Slice the draws of some rows."""
        piece = slice(first, first + rows)
        return Draws(self.frame[piece], self.select[piece], self.swap[piece])


def draw(rows: int, columns: int, k: int, generator: torch.Generator) -> Draws:
    """Draw the random numbers of a global batch. columns: tokens per frame, [CLS] and [SEP] included."""
    device = generator.device
    return Draws(
        torch.randint(k, (rows,), generator=generator, device=device),
        torch.rand((rows, columns), generator=generator, device=device),
        torch.randint(len(SPECIALS), len(SPECIALS) + 5**k, (rows, columns), generator=generator, device=device),
    )


def masked_places(labels: torch.Tensor, share: float) -> torch.Tensor:
    """Return the places to predict in labels (rows, columns), counted through all rows, padded with zeros: (places,).

    The number of places depends on the shape alone, so the host does not wait for the device. It is eight standard
    deviations above the expected number of masked tokens, which one batch in 10^15 exceeds.
    """
    tokens = labels.numel()
    expected, deviation = share * tokens, math.sqrt(share * (1 - share) * tokens)
    room = min(math.ceil(expected + 8 * deviation), tokens)
    return torch.nonzero_static((labels != IGNORED).flatten(), size=room, fill_value=0)[:, 0]


def mask(input_ids: torch.Tensor, kmers: torch.Tensor, draws: Draws, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask `share` of the k-mers. input_ids: (rows, columns) int64; kmers: (rows,) k-mers after the [CLS].

    Returns the ids that the model reads, and the labels: IGNORED except where a k-mer is to be predicted.
    """
    place = torch.arange(input_ids.shape[1], device=input_ids.device)
    selected = (place >= 1) & (place <= kmers[:, None]) & (draws.select < share)
    labels = torch.where(selected, input_ids, IGNORED)
    action = draws.select / share
    read = torch.where(selected & (action < HIDDEN), MASK, input_ids)
    read = torch.where(selected & (action >= HIDDEN) & (action < HIDDEN + SWAPPED), draws.swap, read)
    return read, labels
