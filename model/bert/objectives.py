"""The two stages as modules: a micro-batch in, sums over its promoters or tokens out.

Sums, not means: the loop divides them by what the whole global batch holds, so that gradients and metrics do
not depend on how the batch is split over ranks and micro-batches.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from model.bert.forward import expression_logits, kmer_logits
from model.bert.frames import VIEWS, kmers_in_frames, one_frame, read_width, reading_frames
from model.bert.masking import IGNORED, Draws, chosen_places, draw, mask
from pipeline.stream.stream import Batch

LOSSES = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
"""Of standardised labels, by the name that finetune.loss gives it."""


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

    flanks: bases before and after the insert; insert_only: nothing is masked that is not wholly inside it.
    """

    def __init__(self, k: int, mask_share: float, flanks: tuple[int, int] = (0, 0), insert_only: bool = False) -> None:
        super().__init__()
        self.k = k
        self.mask_share = mask_share
        self.flanks = flanks
        self.never_masked = flanks if insert_only else (0, 0)
        """Bases at either end whose k-mers stay as they are."""

    def width(self, batch: Batch, device: torch.device) -> int:
        """Of the longest promoter of the global batch."""
        return read_width(int(batch.global_lengths.max()), "frames", self.k, device)

    def draws(self, batch: Batch, generator: torch.Generator) -> Draws | None:
        """Frame, masked places and swapped k-mers of every row of the global batch."""
        return draw(batch.global_rows, self.width(batch, generator.device) // self.k + 2, self.k, generator)

    def masked(self, batch: DeviceBatch) -> Masked:
        """What the model reads of a batch, and what it is to predict."""
        assert batch.draws is not None
        frames = one_frame(reading_frames(batch.tokens, batch.lengths, self.k), batch.draws.frame)
        draws = batch.draws
        if any(self.never_masked):
            maskable = self._between(batch, frames.input_ids.shape[1], self.never_masked)
            draws = replace(draws, select=torch.where(maskable, draws.select, 1.0))
        read, labels = mask(frames.input_ids, frames.kmers, draws, self.mask_share)
        labels = torch.where(batch.weight[:, None] > 0, labels, IGNORED)
        return Masked(read, frames.attention_mask, labels)

    def sums_inside(self, batch: DeviceBatch, labels: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        """Sums over the k-mers to be predicted that lie wholly inside the insert: (parts,) float64.

        labels and parts: (rows, tokens + 2).
        """
        inside = self.within(batch, labels)
        return torch.stack([(part * inside).double().sum() for part in parts])

    def within(self, batch: DeviceBatch, labels: torch.Tensor) -> torch.Tensor:
        """Which k-mers are to be predicted and lie wholly inside the insert: (rows, tokens + 2), as labels."""
        return self._between(batch, labels.shape[1], self.flanks) & (labels != IGNORED)

    def _between(self, batch: DeviceBatch, columns: int, flanks: tuple[int, int]) -> torch.Tensor:
        """Which k-mers lie wholly between so many bases at either end: (rows, columns)."""
        assert batch.draws is not None
        place = torch.arange(columns, device=batch.lengths.device)
        begin = batch.draws.frame[:, None] + (place - 1) * self.k  # the first place is [CLS]
        before, behind = flanks
        return (begin >= before) & (begin + self.k <= batch.lengths[:, None] - behind)


class PretrainTask(MaskedTask):
    """Masked language model."""

    def __init__(
        self,
        model: nn.Module,
        k: int,
        mask_share: float,
        flanks: tuple[int, int] = (0, 0),
        insert_only: bool = False,
    ) -> None:
        super().__init__(k, mask_share, flanks, insert_only)
        self.model = model

    def normaliser(self, batch: Batch, draws: Draws | None) -> torch.Tensor | float:
        """The k-mers expected to be masked: known on every rank without asking the others."""
        assert draws is not None
        lengths = moved(batch.global_lengths, draws.frame.device)
        kmers = kmers_in_frames(lengths, self.k, self.never_masked).gather(1, draws.frame[:, None])
        return self.mask_share * kmers.sum()

    def forward(self, batch: DeviceBatch) -> Sums:
        """Cross-entropy in float32 over the masked k-mers."""
        masked = self.masked(batch)
        labels = masked.labels
        places = chosen_places(labels, self.mask_share)
        count = (labels != IGNORED).sum()
        wanted = torch.where(torch.arange(len(places), device=places.device) < count, labels.flatten()[places], IGNORED)
        logits = kmer_logits(self.model, masked.read, masked.attention_mask, places).float()
        each = F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="none")
        right = logits.detach().argmax(-1) == wanted
        within = each.new_zeros(3, dtype=torch.float64)
        if not self.training:
            here = self.within(batch, labels).flatten()[places] & (wanted != IGNORED)
            within = torch.stack([(part * here).double().sum() for part in (each, here, right)])
        loss = each.sum()
        return Sums(loss, count, right.sum(), loss.new_empty(0), within)


class FinetuneTask(nn.Module):
    """Expression as the mean output over all reading frames, or of the overlapping tokens; squared error or smooth L1
    on standardised labels."""

    def __init__(
        self,
        model: nn.Module,
        k: int,
        label_mean: float,
        label_sd: float,
        view: str = "frames",
        loss: str = "mse",
    ) -> None:
        super().__init__()
        self.loss = LOSSES[loss]
        self.model = model
        self.k = k
        self.view = view
        self.label_mean = label_mean
        self.label_sd = label_sd if label_sd > 0 else 1.0

    def width(self, batch: Batch, device: torch.device) -> int:
        """Of the longest promoter of the global batch."""
        return read_width(int(batch.global_lengths.max()), self.view, self.k, device)

    def draws(self, batch: Batch, generator: torch.Generator) -> Draws | None:
        """Nothing is random here but dropout."""
        del batch, generator
        return None

    def normaliser(self, batch: Batch, draws: Draws | None) -> torch.Tensor | float:
        """The promoters of the global batch."""
        del draws
        return batch.global_rows

    def forward(self, batch: DeviceBatch) -> Sums:
        """Loss in float32; predictions on the scale of the labels."""
        standardised = mean_over_frames(self.model, batch.tokens, batch.lengths, self.k, self.view)
        error = self.loss(standardised, (batch.expression - self.label_mean) / self.label_sd, reduction="none")
        loss = (error * batch.weight).sum()
        prediction = standardised.detach() * self.label_sd + self.label_mean
        return Sums(loss, batch.weight.sum(), loss.new_zeros(()), prediction, loss.new_zeros(3, dtype=torch.float64))


def mean_over_frames(
    model: nn.Module, tokens: torch.Tensor, lengths: torch.Tensor, k: int, view: str = "frames"
) -> torch.Tensor:
    """The mean output of a BertForSequenceClassification over the k reading frames, or its one output for the
    overlapping tokens (see frames.VIEWS): (rows,) float32."""
    frames = VIEWS[view](tokens, lengths, k)
    logits = expression_logits(model, frames.input_ids.flatten(0, 1), frames.attention_mask.flatten(0, 1))
    mean: torch.Tensor = logits.float().view(tokens.shape[0], -1).mean(1)
    return mean


def to_device(batch: Batch, width: int, draws: Draws | None, device: torch.device) -> DeviceBatch:
    """Move a batch, `width` bases of it; ids wider than a byte become int32, which torch can index with everywhere.

    To a GPU by way of pinned memory, so that nothing waits for the copies here. They share the stream of the work:
    4,096 promoters are 2 MB, some 0.1 ms.
    """
    tokens = of_width(batch.tokens, width)
    mine = draws.part(batch.first_row, len(batch.id)) if draws is not None else None
    return DeviceBatch(
        tokens=moved(tokens, device),
        lengths=moved(batch.lengths, device),
        expression=moved(batch.expression, device),
        weight=moved(batch.weight, device),
        draws=mine,
    )


def of_width(tokens: npt.NDArray[np.unsignedinteger], width: int) -> npt.NDArray[Any]:
    """Ids as torch takes them, uint8 or int32, cut or padded with 0 to so many bases."""
    if tokens.shape[1] < width:
        tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
    tokens = tokens[:, :width]
    return tokens if tokens.dtype == np.uint8 else tokens.astype(np.int32)


def moved(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array on the device, to a GPU by way of pinned memory."""
    here = torch.from_numpy(array)
    if device.type != "cuda":
        return here.to(device)
    pinned = torch.empty(here.shape, dtype=here.dtype, pin_memory=True)
    return pinned.copy_(here).to(device, non_blocking=True)
