"""The two stages as modules: a micro-batch in, sums over its promoters or tokens out.

Sums, not means: the loop divides them by what the whole global batch holds, so that gradients and metrics do
not depend on how the batch is split over ranks and micro-batches.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from model.frames import VIEWS, kmers_in_frames, one_frame, reading_frames
from model.masking import IGNORED, Draws, draw, mask
from pipeline.stream import Batch


@dataclass(frozen=True)
class DeviceBatch:
    """A stream batch as tensors: tokens (rows, width), lengths, expression, weight (rows,), its draws if any."""

    tokens: torch.Tensor
    lengths: torch.Tensor
    expression: torch.Tensor
    weight: torch.Tensor
    draws: Draws | None


@dataclass(frozen=True)
class Sums:
    """loss: summed over what is counted; count; correct: tokens predicted right; prediction: (rows,) or empty.

    inside: (3,) float64, loss, count and correct of the masked tokens wholly inside the insert; zeros in training,
    which has no use for them, and in fine-tuning.
    """

    loss: torch.Tensor
    count: torch.Tensor
    correct: torch.Tensor
    prediction: torch.Tensor
    inside: torch.Tensor


class Task(Protocol):
    """What the loop asks of a stage."""

    def draws(self, batch: Batch, generator: torch.Generator) -> Draws | None:
        """Random numbers for the global batch that `batch` is part of."""

    def normaliser(self, batch: Batch, draws: Draws | None) -> torch.Tensor | float:
        """What the global batch's summed loss is divided by."""


@dataclass(frozen=True)
class Masked:
    """One reading frame a promoter with k-mers to be predicted, each (rows, tokens + 2).

    read: ids as the model sees them; attention_mask: 0 for padding; labels: true ids where something is to be
    predicted, IGNORED elsewhere.
    """

    read: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


class MaskedTask(nn.Module):
    """What is masked of one reading frame a promoter, drawn anew each time.

    flanks: bases before and after the insert.
    """

    def __init__(self, k: int, mask_share: float, flanks: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.k = k
        self.mask_share = mask_share
        self.flanks = flanks

    def draws(self, batch: Batch, generator: torch.Generator) -> Draws | None:
        """Frame, masked places and swapped k-mers of every row of the global batch."""
        return draw(batch.global_rows, batch.tokens.shape[1] // self.k + 2, self.k, generator)

    def masked(self, batch: DeviceBatch) -> Masked:
        """What the model reads of a batch, and what it is to predict."""
        assert batch.draws is not None
        frames = one_frame(reading_frames(batch.tokens, batch.lengths, self.k), batch.draws.frame)
        read, labels = mask(frames.input_ids, frames.kmers, batch.draws, self.mask_share)
        labels = torch.where(batch.weight[:, None] > 0, labels, IGNORED)
        return Masked(read, frames.attention_mask, labels)

    def sums_inside(self, batch: DeviceBatch, labels: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        """Sums over the k-mers to be predicted that lie wholly inside the insert: (parts,) float64.

        labels and parts: (rows, tokens + 2).
        """
        assert batch.draws is not None
        place = torch.arange(labels.shape[1], device=labels.device)
        begin = batch.draws.frame[:, None] + (place - 1) * self.k  # the first place is [CLS]
        before, behind = self.flanks
        inside = (begin >= before) & (begin + self.k <= batch.lengths[:, None] - behind) & (labels != IGNORED)
        return torch.stack([(part * inside).double().sum() for part in parts])


class PretrainTask(MaskedTask):
    """Masked language model."""

    def __init__(self, model: nn.Module, k: int, mask_share: float, flanks: tuple[int, int] = (0, 0)) -> None:
        super().__init__(k, mask_share, flanks)
        self.model = model

    def normaliser(self, batch: Batch, draws: Draws | None) -> torch.Tensor | float:
        """The k-mers expected to be masked: known on every rank without asking the others."""
        assert draws is not None
        lengths = torch.from_numpy(batch.global_lengths).to(draws.frame.device)
        kmers = kmers_in_frames(lengths, self.k).gather(1, draws.frame[:, None])
        return self.mask_share * kmers.sum()

    def forward(self, batch: DeviceBatch) -> Sums:
        """Cross-entropy in float32 over the masked k-mers."""
        masked = self.masked(batch)
        labels = masked.labels
        logits = self.model(input_ids=masked.read, attention_mask=masked.attention_mask).logits.float()
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        counted = labels != IGNORED
        right = (logits.detach().argmax(-1) == labels) & counted
        inside = loss.new_zeros(3, dtype=torch.float64)
        if not self.training:
            each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
            inside = self.sums_inside(batch, labels, each.view_as(labels), counted, right)
        return Sums(loss, counted.sum(), right.sum(), loss.new_empty(0), inside)


class FinetuneTask(nn.Module):
    """Expression as the mean output over all reading frames, or of the overlapping tokens; squared error on
    standardised labels."""

    def __init__(self, model: nn.Module, k: int, label_mean: float, label_sd: float, view: str = "frames") -> None:
        super().__init__()
        self.model = model
        self.k = k
        self.view = view
        self.label_mean = label_mean
        self.label_sd = label_sd if label_sd > 0 else 1.0

    def draws(self, batch: Batch, generator: torch.Generator) -> Draws | None:
        """Nothing is random here but dropout."""
        del batch, generator
        return None

    def normaliser(self, batch: Batch, draws: Draws | None) -> torch.Tensor | float:
        """The promoters of the global batch."""
        del draws
        return batch.global_rows

    def forward(self, batch: DeviceBatch) -> Sums:
        """Squared error in float32; predictions on the scale of the labels."""
        standardised = mean_over_frames(self.model, batch.tokens, batch.lengths, self.k, self.view)
        error = standardised - (batch.expression - self.label_mean) / self.label_sd
        loss = (error.square() * batch.weight).sum()
        prediction = standardised.detach() * self.label_sd + self.label_mean
        return Sums(loss, batch.weight.sum(), loss.new_zeros(()), prediction, loss.new_zeros(3, dtype=torch.float64))


def mean_over_frames(
    model: nn.Module, tokens: torch.Tensor, lengths: torch.Tensor, k: int, view: str = "frames"
) -> torch.Tensor:
    """The mean output of a one-output model over the k reading frames, or its one output for the overlapping tokens
    (see frames.VIEWS): (rows,) float32."""
    frames = VIEWS[view](tokens, lengths, k)
    logits = model(input_ids=frames.input_ids.flatten(0, 1), attention_mask=frames.attention_mask.flatten(0, 1)).logits
    mean: torch.Tensor = logits.float().view(len(tokens), -1).mean(1)
    return mean


def to_device(batch: Batch, draws: Draws | None, device: torch.device) -> DeviceBatch:
    """Move a batch; ids wider than a byte become int32, which torch can index with everywhere.

    To a GPU by way of pinned memory, so that the copies run beside its work and nothing waits for them here.
    """
    tokens = batch.tokens if batch.tokens.dtype == np.uint8 else batch.tokens.astype(np.int32)
    mine = draws.part(batch.first_row, len(batch.id)) if draws is not None else None
    return DeviceBatch(
        tokens=_moved(tokens, device),
        lengths=_moved(batch.lengths, device),
        expression=_moved(batch.expression, device),
        weight=_moved(batch.weight, device),
        draws=mine,
    )


def _moved(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    here = torch.from_numpy(array)
    if device.type != "cuda":
        return here.to(device)
    pinned = torch.empty(here.shape, dtype=here.dtype, pin_memory=True)
    return pinned.copy_(here).to(device, non_blocking=True)
