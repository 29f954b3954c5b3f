"""Stored ids -> what BERT reads: reading frames with [CLS] and [SEP], on the device."""

from dataclasses import dataclass

import torch

from pipeline.kmers import CLS, PAD, SEP


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
    rows, width = tokens.shape
    columns = width // k
    wide = torch.nn.functional.pad(tokens.long(), (0, k - 1))
    kmers = torch.stack([wide[:, f : f + columns * k : k] for f in range(k)], dim=1)
    counts = kmers_in_frames(lengths, k)
    place = torch.arange(columns + 2, device=tokens.device)
    input_ids = torch.full((rows, k, columns + 2), PAD, dtype=torch.long, device=tokens.device)
    input_ids[:, :, 0] = CLS
    input_ids[:, :, 1:-1] = torch.where(place[:-2] < counts[:, :, None], kmers, PAD)
    input_ids.scatter_(2, counts[:, :, None] + 1, SEP)
    return Frames(input_ids, (place < counts[:, :, None] + 2).long(), counts)


def kmers_in_frames(lengths: torch.Tensor, k: int) -> torch.Tensor:
    """Whole k-mers in each reading frame of sequences of these lengths: (rows, k)."""
    starts = torch.arange(k, device=lengths.device)
    return ((lengths[:, None] - starts) // k).clamp(min=0)


def one_frame(frames: Frames, chosen: torch.Tensor) -> Frames:
    """Frame `chosen[i]` of row i: (rows, tokens + 2)."""
    rows = torch.arange(len(chosen), device=chosen.device)
    return Frames(frames.input_ids[rows, chosen], frames.attention_mask[rows, chosen], frames.kmers[rows, chosen])
