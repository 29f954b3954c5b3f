"""Masking for the language model, 80/10/10, the same for a promoter however the global batch is split.

The random numbers are drawn for the whole global batch, from a generator seeded by the step; a rank takes the
rows it holds. Tokens of one reading frame do not overlap, so a hidden k-mer cannot be read off its neighbours.
"""

import math
from dataclasses import dataclass

import torch

from pipeline.tokens.kmers import MASK, SPECIALS

HIDDEN, SWAPPED = 0.8, 0.1
"""Of the tokens to predict: share replaced by [MASK], share replaced by a random k-mer; the rest stay."""
IGNORED = -100
"""Label of a token that is not to be predicted."""


@dataclass(frozen=True)
class Draws:
    """For each row of a global batch: frame (rows,), select (rows, columns) in [0, 1), swap (rows, columns) ids."""

    frame: torch.Tensor
    select: torch.Tensor
    swap: torch.Tensor

    def part(self, first: int, rows: int) -> "Draws":
        """The draws of some of the rows."""
        piece = slice(first, first + rows)
        return Draws(self.frame[piece], self.select[piece], self.swap[piece])


def draw(rows: int, columns: int, k: int, generator: torch.Generator) -> Draws:
    """Random numbers for a global batch; columns: tokens a frame, [CLS] and [SEP] included."""
    device = generator.device
    return Draws(
        torch.randint(k, (rows,), generator=generator, device=device),
        torch.rand((rows, columns), generator=generator, device=device),
        torch.randint(len(SPECIALS), len(SPECIALS) + 5**k, (rows, columns), generator=generator, device=device),
    )


def chosen_places(labels: torch.Tensor, share: float) -> torch.Tensor:
    """Where labels, (rows, columns), are to be predicted, counted through all rows, then zeros to fill up: (places,).

    How many places there are depends on the shape alone, so nothing waits for the device: eight standard deviations
    more than what is expected of that many k-mers, which one batch in 10^15 exceeds.
    """
    tokens = labels.numel()
    expected, deviation = share * tokens, math.sqrt(share * (1 - share) * tokens)
    room = min(math.ceil(expected + 8 * deviation), tokens)
    return torch.nonzero_static((labels != IGNORED).flatten(), size=room, fill_value=0)[:, 0]


def mask(input_ids: torch.Tensor, kmers: torch.Tensor, draws: Draws, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide `share` of the k-mers. input_ids: (rows, columns); kmers: (rows,) k-mers after the [CLS].

    Returns what the model reads and its labels, IGNORED where nothing is to be predicted.
    """
    place = torch.arange(input_ids.shape[1], device=input_ids.device)
    is_kmer = (place >= 1) & (place <= kmers[:, None])
    chosen = is_kmer & (draws.select < share)
    labels = torch.where(chosen, input_ids, IGNORED)
    action = draws.select / share
    read = torch.where(chosen & (action < HIDDEN), MASK, input_ids)
    read = torch.where(chosen & (action >= HIDDEN) & (action < HIDDEN + SWAPPED), draws.swap, read)
    return read, labels
