"""Mask k-mers for the language model, as in BERT (Devlin et al. 2019): 80 % [MASK], 10 % random, 10 % unchanged.

The masks do not depend on how the global batch is split. The random numbers of a token are a function of the step, its
row in the global batch and its place in the row. Each rank computes those of its rows. The k-mers of one reading
frame do not overlap, so adjacent tokens do not reveal a masked k-mer.

Random Ns of fine-tuning and hidden spans (spans.py) are drawn in the same way, per base.
"""

import math
from dataclasses import dataclass, replace

import torch

from pipeline.tokens.kmers import ALPHABET, MASK, SPECIALS

HIDDEN, SWAPPED = 0.8, 0.1
"""Fractions of the tokens to predict that become [MASK], or a random k-mer. The others stay unchanged."""
_MOST_COLUMNS = 1 << 24
"""Above the number of tokens of any frame."""
IGNORED = -100
"""Label of a token that is not predicted; torch's cross-entropy ignores this value by default."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of some rows of a global batch.

    frame: (rows,) int64, reading frame; select: (rows, columns) float32 in [0, 1), decides on masking; swap: (rows,
    columns) int64, ids of random k-mers.
    """

    frame: torch.Tensor
    select: torch.Tensor
    swap: torch.Tensor


@dataclass(frozen=True)
class BatchDraws:
    """Random numbers of a global batch, of which those per token are computed for a rank's own rows only.

    frame: (rows,) int64, reading frames of all rows; key: seed of the other numbers, which are a function of key, row
    and column; columns: numbers per row, for masks the tokens per frame, [CLS] and [SEP] included; margin: columns
    beyond one per k bases.
    """

    frame: torch.Tensor
    key: int
    columns: int
    k: int
    margin: int = 2

    def slice_rows(self, first: int, rows: int) -> Draws:
        """Compute the draws of `rows` rows, starting at row `first`."""
        return self.select_rows(torch.arange(first, first + rows, device=self.frame.device), self.columns)

    def select_rows(self, rows: torch.Tensor, columns: int) -> Draws:
        """Compute the first `columns` draws of some rows. rows: (n,) int64 indices into the global batch."""
        column = torch.arange(columns, device=rows.device)
        mixed = _mix(rows[:, None] * _MOST_COLUMNS + column, self.key)
        select = ((mixed >> 40) & 0xFFFFFF).float() / (1 << 24)
        swap = ((mixed & 0xFFFFFFFF) * 5**self.k >> 32) + len(SPECIALS)
        return Draws(self.frame[rows], select, swap)


def draw(rows: int, columns: int, k: int, generator: torch.Generator) -> BatchDraws:
    """Draw the random numbers of a global batch. columns: tokens per frame, [CLS] and [SEP] included."""
    frame = torch.randint(k, (rows,), generator=generator, device=generator.device)
    return BatchDraws(frame, generator.initial_seed(), columns, k)


def draw_bases(rows: int, width: int, k: int, generator: torch.Generator, before: int = 0) -> BatchDraws:
    """Draw a random number per base of a global batch, Draws.select.

    width: bases that begin a k-mer; before: places before the first base, which get numbers, too.
    """
    margin = before + k - 1  # the last k-mers extend past the width
    return replace(draw(rows, width + margin, 1, generator), margin=margin)


def _mix(numbers: torch.Tensor, key: int) -> torch.Tensor:
    """Mix int64 numbers with a key to 64 random bits each: SplitMix64 (Steele, Lea and Flood, 2014), on any device."""
    mixed = numbers * _to_signed(0x9E3779B97F4A7C15) + key
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shift_right(mixed, shift)) * _to_signed(factor)
    return mixed ^ _shift_right(mixed, 31)


def _shift_right(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift int64 numbers to the right, and zeros into their highest bits."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _to_signed(number: int) -> int:
    """Convert an unsigned number of 64 bits to the signed one with the same bits."""
    return number - (number >> 63 << 64)


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


def hide_bases(tokens: torch.Tensor, is_hidden: torch.Tensor, k: int) -> torch.Tensor:
    """Replace bases by N in the ids of all k-mers that contain them: int64 (rows, width).

    tokens: (rows, width) ids, one per base; is_hidden: bool (rows, width + k - 1). Special tokens stay.
    """
    codes, width = tokens.long() - len(SPECIALS), tokens.shape[1]
    for place in range(k):
        power = len(ALPHABET) ** (k - 1 - place)
        to_n = (ALPHABET.index("N") - codes // power % len(ALPHABET)) * power
        codes = codes + to_n * is_hidden[:, place : place + width]
    return torch.where(tokens < len(SPECIALS), tokens.long(), codes + len(SPECIALS))
