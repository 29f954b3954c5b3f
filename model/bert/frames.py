"""Stored ids -> what BERT reads: reading frames or overlapping tokens with [CLS] and [SEP], on the device."""

from dataclasses import dataclass

import torch

from pipeline.tokens.kmers import CLS, PAD, SEP


@dataclass(frozen=True)
class Frames:
    """input_ids, attention_mask: (..., tokens + 2) int64; kmers: (...,) whole k-mers in each frame."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    kmers: torch.Tensor


def reading_frames(tokens: torch.Tensor, lengths: torch.Tensor, k: int) -> Frames:
    """All k reading frames of ids that are stored one a base.

    tokens: (rows, width); lengths: (rows,) bases. Gives (rows, k, width // k + 2): frame f is [CLS], the k-mers
    that begin at bases f, f + k, ... and end inside the sequence, [SEP], then padding.
    """
    columns = tokens.shape[1] // k
    wide = torch.nn.functional.pad(tokens.long(), (0, k - 1))
    kmers = torch.stack([wide[:, f : f + columns * k : k] for f in range(k)], dim=1)
    return _framed(kmers, kmers_in_frames(lengths, k))


def overlapping_kmers(tokens: torch.Tensor, lengths: torch.Tensor, k: int) -> Frames:
    """All k-mers of each sequence, as if they were one frame: (rows, 1, width + 2).

    tokens, lengths: as for reading_frames. The k-mers begin at bases 0, 1, 2, ... and end inside the sequence.
    """
    return _framed(tokens.long()[:, None], (lengths[:, None] - k + 1).clamp(min=0))


def read_width(longest: int, view: str, k: int, device: torch.device) -> int:
    """Bases from which a view makes the tokens of sequences of at most `longest` bases.

    On a GPU the tokens, [CLS] and [SEP] included, are a multiple of 8: few shapes occur, and its kernels like them.
    """
    bases = 1 if view == "overlapping" else k
    tokens = longest // bases + 2
    if device.type == "cuda":
        tokens = -(-tokens // 8) * 8
    return bases * (tokens - 2)


def _framed(kmers: torch.Tensor, counts: torch.Tensor) -> Frames:
    """kmers: (rows, frames, columns) ids; counts: (rows, frames) of them that are whole."""
    rows, frames, columns = kmers.shape
    place = torch.arange(columns + 2, device=kmers.device)
    input_ids = torch.full((rows, frames, columns + 2), PAD, dtype=torch.long, device=kmers.device)
    input_ids[:, :, 0] = CLS
    input_ids[:, :, 1:-1] = torch.where(place[:-2] < counts[:, :, None], kmers, PAD)
    input_ids.scatter_(2, counts[:, :, None] + 1, SEP)
    return Frames(input_ids, (place < counts[:, :, None] + 2).long(), counts)


VIEWS = {"frames": reading_frames, "overlapping": overlapping_kmers}
"""What a model of expression reads of a promoter, by the name that finetune.tokens gives it."""


def kmers_in_frames(lengths: torch.Tensor, k: int, without: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Whole k-mers in each reading frame of sequences of these lengths: (rows, k).

    without: bases at either end that are left out; frames begin where they begin with them.
    """
    starts = torch.arange(k, device=lengths.device)
    before = -((starts - without[0]) // k).clamp(max=0)  # k-mers of the frame that begin among the first bases
    return ((lengths[:, None] - without[1] - starts) // k - before).clamp(min=0)


def one_frame(frames: Frames, chosen: torch.Tensor) -> Frames:
    """Frame `chosen[i]` of row i: (rows, tokens + 2)."""
    rows = torch.arange(len(chosen), device=chosen.device)
    return Frames(frames.input_ids[rows, chosen], frames.attention_mask[rows, chosen], frames.kmers[rows, chosen])
