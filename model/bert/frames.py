"""Make BERT's input of stored k-mer ids on the device: reading frames or overlapping tokens, with [CLS] and [SEP]."""

from dataclasses import dataclass

import torch

from pipeline.tokens.kmers import CLS, PAD, SEP


@dataclass(frozen=True)
class Frames:
    """Token sequences with [CLS] and [SEP].

    input_ids, attention_mask: (..., tokens + 2) int64; kmers: (...,) whole k-mers of each frame.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    kmers: torch.Tensor


def reading_frames(tokens: torch.Tensor, lengths: torch.Tensor, k: int) -> Frames:
    """Cut the k reading frames out of stride-1 ids: (rows, k, width // k + 2).

    tokens: (rows, width) one id per base; lengths: (rows,) bases. Frame f holds [CLS], the k-mers that begin at bases
    f, f + k, ... and end inside the sequence, [SEP], then padding.
    """
    columns = tokens.shape[1] // k
    wide = torch.nn.functional.pad(tokens.long(), (0, k - 1))
    kmers = torch.stack([wide[:, f : f + columns * k : k] for f in range(k)], dim=1)
    return _framed(kmers, kmers_in_frames(lengths, k))


def overlapping_kmers(tokens: torch.Tensor, lengths: torch.Tensor, k: int) -> Frames:
    """Take all k-mers of each sequence as one frame: (rows, 1, width + 2).

    tokens, lengths: as for reading_frames. The k-mers begin at bases 0, 1, 2, ... and end inside the sequence.
    """
    return _framed(tokens.long()[:, None], (lengths[:, None] - k + 1).clamp(min=0))


def read_width(longest: int, mode: str, k: int, device: torch.device) -> int:
    """Choose the width in bases of a batch whose longest sequence has `longest` bases. mode: see TOKEN_MODES.

    On a GPU the number of tokens, [CLS] and [SEP] included, is a multiple of 8: few shapes occur, and kernels are fast.
    """
    bases = 1 if mode == "overlapping" else k
    tokens = longest // bases + 2
    if device.type == "cuda":
        tokens = -(-tokens // 8) * 8
    return bases * (tokens - 2)


def _framed(kmers: torch.Tensor, counts: torch.Tensor) -> Frames:
    """Put [CLS] and [SEP] around k-mers. kmers: (rows, frames, columns) ids; counts: (rows, frames) whole k-mers."""
    rows, frames, columns = kmers.shape
    place = torch.arange(columns + 2, device=kmers.device)
    input_ids = torch.full((rows, frames, columns + 2), PAD, dtype=torch.long, device=kmers.device)
    input_ids[:, :, 0] = CLS
    input_ids[:, :, 1:-1] = torch.where(place[:-2] < counts[:, :, None], kmers, PAD)
    input_ids.scatter_(2, counts[:, :, None] + 1, SEP)
    return Frames(input_ids, (place < counts[:, :, None] + 2).long(), counts)


TOKEN_MODES = {"frames": reading_frames, "overlapping": overlapping_kmers}
"""How a regression model reads a promoter, by the value of finetune.tokens."""


def kmers_in_frames(lengths: torch.Tensor, k: int, without: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Count the whole k-mers in each reading frame of sequences of these lengths: (rows, k).

    without: bases at either end whose k-mers do not count; frames still begin at the first base.
    """
    starts = torch.arange(k, device=lengths.device)
    before = -((starts - without[0]) // k).clamp(max=0)  # k-mers of the frame that begin among the first bases
    return ((lengths[:, None] - without[1] - starts) // k - before).clamp(min=0)


def one_frame(frames: Frames, chosen: torch.Tensor) -> Frames:
    """Select frame `chosen[i]` of row i: (rows, tokens + 2)."""
    rows = torch.arange(len(chosen), device=chosen.device)
    return Frames(frames.input_ids[rows, chosen], frames.attention_mask[rows, chosen], frames.kmers[rows, chosen])
