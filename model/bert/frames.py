"""Make BERT's input from stored k-mer ids, on the device: reading frames or overlapping tokens, with [CLS] and [SEP].

The original system (SYSU-SAIL, DREAM Challenge 2022) fine-tunes on the k reading frames and averages their outputs.
"""

from dataclasses import dataclass

import torch

from pipeline.tokens.kmers import CLS, PAD, SEP


@dataclass(frozen=True)
class Frames:
    """Token sequences with [CLS] and [SEP].

    input_ids, attention_mask: (..., tokens + 2) int64; kmers: (...,) int64, number of complete k-mers per frame.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    kmers: torch.Tensor


def cut_reading_frames(tokens: torch.Tensor, lengths: torch.Tensor, k: int) -> Frames:
    """Cut the k reading frames of each sequence: (rows, k, width // k + 2).

    tokens: (rows, width) uint8 or int32 ids of the k-mers at every base; lengths: (rows,) bases. Frame f holds [CLS],
    the complete k-mers that begin at bases f, f + k, f + 2k, ..., [SEP], then padding.
    """
    columns = tokens.shape[1] // k
    wide = torch.nn.functional.pad(tokens.long(), (0, k - 1))
    kmers = torch.stack([wide[:, f : f + columns * k : k] for f in range(k)], dim=1)
    return _add_special_tokens(kmers, count_kmers_in_frames(lengths, k))


def take_overlapping_kmers(tokens: torch.Tensor, lengths: torch.Tensor, k: int) -> Frames:
    """Take all complete k-mers of each sequence as one frame: (rows, 1, width + 2).

    tokens, lengths: as for cut_reading_frames. The k-mers begin at bases 0, 1, 2, ...
    """
    return _add_special_tokens(tokens.long()[:, None], (lengths[:, None] - k + 1).clamp(min=0))


def choose_width(longest: int, mode: str, k: int, device: torch.device) -> int:
    """Choose the width of a batch in bases. longest: bases of its longest sequence; mode: see TOKEN_MODES.

    On a GPU the number of tokens, [CLS] and [SEP] included, is a multiple of 8: fewer shapes and faster kernels.
    """
    bases = 1 if mode == "overlapping" else k
    tokens = longest // bases + 2
    if device.type == "cuda":
        tokens = -(-tokens // 8) * 8
    return bases * (tokens - 2)


def fills_width(shortest: int, width: int, mode: str, k: int) -> bool:
    """Return whether all frames of sequences of at least `shortest` bases fill a batch, so that none has padding.

    width: of the batch, in bases; mode: see TOKEN_MODES.
    """
    return shortest - k + 1 == width if mode == "overlapping" else (shortest - k + 1) // k == width // k


def _add_special_tokens(kmers: torch.Tensor, counts: torch.Tensor) -> Frames:
    """Add [CLS] and [SEP]. kmers: (rows, frames, columns) ids; counts: (rows, frames), number of complete k-mers."""
    rows, frames, columns = kmers.shape
    position = torch.arange(columns + 2, device=kmers.device)
    input_ids = torch.full((rows, frames, columns + 2), PAD, dtype=torch.long, device=kmers.device)
    input_ids[:, :, 0] = CLS
    input_ids[:, :, 1:-1] = torch.where(position[:-2] < counts[:, :, None], kmers, PAD)
    input_ids.scatter_(2, counts[:, :, None] + 1, SEP)
    return Frames(input_ids, (position < counts[:, :, None] + 2).long(), counts)


TOKEN_MODES = {"frames": cut_reading_frames, "overlapping": take_overlapping_kmers}
"""Input of a regression model, by the value of finetune.tokens."""


def count_kmers_in_frames(lengths: torch.Tensor, k: int, flanks: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Count the complete k-mers in each reading frame: (rows, k) int64.

    lengths: (rows,) int64 bases; flanks: bases at either end whose k-mers do not count. Frames still begin at base 0.
    """
    starts = torch.arange(k, device=lengths.device)
    before = -((starts - flanks[0]) // k).clamp(max=0)  # k-mers of the frame that begin in the first flank
    return ((lengths[:, None] - flanks[1] - starts) // k - before).clamp(min=0)


def select_frames(frames: Frames, choice: torch.Tensor) -> Frames:
    """Select one frame per row: (rows, tokens + 2). frames: (rows, k, tokens + 2); choice: (rows,) int64."""
    rows = torch.arange(len(choice), device=choice.device)
    return Frames(frames.input_ids[rows, choice], frames.attention_mask[rows, choice], frames.kmers[rows, choice])
