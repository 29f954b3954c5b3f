"""The training objectives of both stages as modules: a micro-batch in, sums over its promoters or tokens out.

Sums, not means: the training step divides them by the size of the global batch. So gradients and metrics do not depend
on how the batch is split over ranks and micro-batches.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from model.bert.device_batch import DeviceBatch, to_device
from model.bert.forward import expression_logits, kmer_logits
from model.bert.frames import TOKEN_MODES, kmers_in_frames, one_frame, read_width, reading_frames
from model.bert.masking import IGNORED, Draws, draw, mask, masked_places
from pipeline.stream.stream import Batch

LOSSES = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
"""Losses on standardized labels, by the value of finetune.loss."""


@dataclass(frozen=True)
class Sums:
    """Sums over a micro-batch.

    loss: over promoters or masked tokens; count: of these; correct: tokens predicted right; prediction: (rows,)
    float32, empty in pretraining; inside: (3,) float64, loss, count and correct of the masked tokens wholly inside the
    insert, zeros in training and in fine-tuning, which do not use them.
    """

    loss: torch.Tensor
    count: torch.Tensor
    correct: torch.Tensor
    prediction: torch.Tensor
    inside: torch.Tensor


class Task(nn.Module):
    """Objective of a stage. mode: how the model reads a promoter, see TOKEN_MODES."""

    def __init__(self, k: int, mode: str) -> None:
        super().__init__()
        self.k = k
        self.mode = mode

    def width(self, batch: Batch, device: torch.device) -> int:
        """Return the width in bases that the longest promoter of the global batch needs."""
        return read_width(int(batch.global_lengths.max()), self.mode, self.k, device)


class MaskedTask(Task):
    """Mask one reading frame per promoter, drawn at random for each step.

    flanks: bases before and after the insert; insert_only: mask only k-mers wholly inside the insert.
    """

    def __init__(self, k: int, mask_share: float, flanks: tuple[int, int] = (0, 0), insert_only: bool = False) -> None:
        super().__init__(k, "frames")
        self.mask_share = mask_share
        self.flanks = flanks
        self.never_masked = flanks if insert_only else (0, 0)
        """Bases at either end whose k-mers are never masked."""

    def draws(self, batch: Batch, generator: torch.Generator) -> Draws | None:
        """Draw frame, masked places and swapped k-mers of every row of the global batch."""
        return draw(batch.global_rows, self.width(batch, generator.device) // self.k + 2, self.k, generator)

    def mask_batch(self, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mask a batch by its draws: one reading frame per promoter.

        Returns the ids that the model reads, the attention mask, and the labels: true ids of the tokens to predict,
        IGNORED elsewhere and in rows of weight 0. Each is (rows, tokens + 2) int64.
        """
        assert batch.draws is not None
        draws = batch.draws
        frames = one_frame(reading_frames(batch.tokens, batch.lengths, self.k), draws.frame)
        if any(self.never_masked):
            maskable = self._between_flanks(batch, frames.input_ids.shape[1], self.never_masked)
            draws = replace(draws, select=torch.where(maskable, draws.select, 1.0))
        read, labels = mask(frames.input_ids, frames.kmers, draws, self.mask_share)
        return read, frames.attention_mask, torch.where(batch.weight[:, None] > 0, labels, IGNORED)

    def masked_in_insert(self, batch: DeviceBatch, labels: torch.Tensor) -> torch.Tensor:
        """Find the k-mers to predict that lie wholly inside the insert: (rows, tokens + 2) bool, as labels."""
        return self._between_flanks(batch, labels.shape[1], self.flanks) & (labels != IGNORED)

    def _between_flanks(self, batch: DeviceBatch, columns: int, flanks: tuple[int, int]) -> torch.Tensor:
        """Find the k-mers that lie wholly between the first and last bases: (rows, columns) bool."""
        assert batch.draws is not None
        place = torch.arange(columns, device=batch.lengths.device)
        begin = batch.draws.frame[:, None] + (place - 1) * self.k  # place 0 is [CLS]
        before, behind = flanks
        return (begin >= before) & (begin + self.k <= batch.lengths[:, None] - behind)


def sum_where(selected: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
    """Sum each tensor of values over the selected tokens: (values,) float64. selected: bool, of the values' shape."""
    return torch.stack([(value * selected).double().sum() for value in values])


class PretrainTask(MaskedTask):
    """Masked language model: cross-entropy over the masked k-mers."""

    def __init__(
        self, model: nn.Module, k: int, mask_share: float, flanks: tuple[int, int] = (0, 0), insert_only: bool = False
    ) -> None:
        super().__init__(k, mask_share, flanks, insert_only)
        self.model = model

    def normaliser(self, batch: Batch, draws: Draws | None) -> torch.Tensor | float:
        """Return the expected number of masked k-mers in the global batch, known on every rank without a collective."""
        assert draws is not None
        lengths = to_device(batch.global_lengths, draws.frame.device)
        kmers = kmers_in_frames(lengths, self.k, self.never_masked).gather(1, draws.frame[:, None])
        return self.mask_share * kmers.sum()

    def forward(self, batch: DeviceBatch) -> Sums:
        """Compute the cross-entropy in float32, in nats, summed over the masked k-mers."""
        read, attention_mask, labels = self.mask_batch(batch)
        places = masked_places(labels, self.mask_share)
        count = (labels != IGNORED).sum()
        target = torch.where(torch.arange(len(places), device=places.device) < count, labels.flatten()[places], IGNORED)
        logits = kmer_logits(self.model, read, attention_mask, places).float()
        losses = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
        correct = logits.detach().argmax(-1) == target
        inside = losses.new_zeros(3, dtype=torch.float64)
        if not self.training:
            in_insert = self.masked_in_insert(batch, labels).flatten()[places] & (target != IGNORED)
            inside = sum_where(in_insert, losses, in_insert, correct)
        loss = losses.sum()
        return Sums(loss, count, correct.sum(), loss.new_empty(0), inside)


class FinetuneTask(Task):
    """Regression of expression on standardized labels: squared error or smooth L1.

    The prediction is the mean output over all reading frames, or the one output of the overlapping tokens.
    """

    def __init__(
        self, model: nn.Module, k: int, label_mean: float, label_sd: float, mode: str = "frames", loss: str = "mse"
    ) -> None:
        super().__init__(k, mode)
        self.loss = LOSSES[loss]
        self.model = model
        self.label_mean = label_mean
        self.label_sd = label_sd if label_sd > 0 else 1.0

    def draws(self, batch: Batch, generator: torch.Generator) -> Draws | None:
        """Return None: only dropout is random here."""
        del batch, generator
        return None

    def normaliser(self, batch: Batch, draws: Draws | None) -> torch.Tensor | float:
        """Return the number of promoters in the global batch."""
        del draws
        return batch.global_rows

    def forward(self, batch: DeviceBatch) -> Sums:
        """Compute the loss in float32, summed over promoters, and predictions on the scale of the labels."""
        output = mean_over_frames(self.model, batch.tokens, batch.lengths, self.k, self.mode)
        error = self.loss(output, (batch.expression - self.label_mean) / self.label_sd, reduction="none")
        loss = (error * batch.weight).sum()
        prediction = output.detach() * self.label_sd + self.label_mean
        return Sums(loss, batch.weight.sum(), loss.new_zeros(()), prediction, loss.new_zeros(3, dtype=torch.float64))


def mean_over_frames(
    model: nn.Module, tokens: torch.Tensor, lengths: torch.Tensor, k: int, mode: str = "frames"
) -> torch.Tensor:
    """Predict by a BertForSequenceClassification: the mean output over the frames of a promoter, (rows,) float32.

    tokens: (rows, width) ids, one per base; lengths: (rows,) bases; mode: see TOKEN_MODES. Overlapping tokens are one
    frame.
    """
    frames = TOKEN_MODES[mode](tokens, lengths, k)
    logits = expression_logits(model, frames.input_ids.flatten(0, 1), frames.attention_mask.flatten(0, 1))
    mean: torch.Tensor = logits.float().view(tokens.shape[0], -1).mean(1)
    return mean
