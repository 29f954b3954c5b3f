"""Training objectives of both stages, as modules that map a micro-batch to sums over its promoters or tokens.

The training step divides these sums by the size of the global batch. So gradients and metrics do not depend on how the
batch is split over ranks and micro-batches.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from model.bert.bins import compute_bin_losses, compute_expected_value, read_centres
from model.bert.device_batch import DeviceBatch, to_device
from model.bert.forward import ExpressionHead, compute_expression_logits, compute_kmer_logits
from model.bert.frames import TOKEN_MODES, choose_width, count_kmers_in_frames, cut_reading_frames, select_frames
from model.bert.length_cut import ModelInput, Pass, cut_by_length
from model.bert.masking import IGNORED, BatchDraws, draw, draw_bases, find_masked_positions, hide_bases, mask_kmers
from pipeline.stream.stream import Batch

LOSSES = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
"""Losses on standardized labels, by the value of finetune.loss."""


class Sums(NamedTuple):
    """Sums over a micro-batch. A tuple, as DeepSpeed puts its hooks only on tensors that it finds in tuples.

    loss: float32 scalar, over labels or masked tokens; count: number of these; correct: number of correct tokens;
    prediction: float32, (rows,) or (rows, labels) for several labels, empty in pretraining; inside: (3,) float64, loss,
    count and correct of the masked tokens that lie wholly inside the insert, zeros in training and in fine-tuning.
    """

    loss: torch.Tensor
    count: torch.Tensor  # type: ignore[assignment]  # replaces tuple.count
    correct: torch.Tensor
    prediction: torch.Tensor
    inside: torch.Tensor


def add_sums(parts: Sequence[Sums]) -> Sums:
    """Add the sums of the passes of a micro-batch, and join their predictions in the order of the passes."""
    if len(parts) == 1:
        return parts[0]
    totals = {name: torch.stack([getattr(part, name) for part in parts]).sum(0) for name in Sums._fields[:3]}
    inside = torch.stack([part.inside for part in parts]).sum(0)
    return Sums(**totals, prediction=torch.cat([part.prediction for part in parts]), inside=inside)


class Task(nn.Module):
    """Objective of a stage. mode: see TOKEN_MODES; frames: reading frames that it reads per promoter."""

    def __init__(self, k: int, mode: str, frames: int) -> None:
        super().__init__()
        self.k = k
        self.mode = mode
        self.frames = frames
        self.target_bases = k
        """Bases per prediction of the masked language model."""
        self.may_cut = True
        """Whether micro-batches may be cut. Not at ZeRO 3, where each pass gathers weights from all ranks."""

    def forward(self, *passes: DeviceBatch) -> Sums:
        """Compute the sums over a micro-batch from its passes. A micro-batch that is not cut is one pass."""
        return add_sums([self.compute_sums(one) for one in passes])

    def compute_sums(self, batch: DeviceBatch) -> Sums:
        """Compute the sums over one pass."""
        raise NotImplementedError

    def compile_passes(self, backend: str) -> None:
        """Compile the computation of a pass: four graphs, in training and evaluation, with and without a mask.

        Each is valid for all numbers of rows and all widths.
        """
        self.compute_sums = torch.compile(self.compute_sums, backend=backend, dynamic=True)  # type: ignore[method-assign]

    def cut(self, batch: Batch, device: torch.device) -> list[Pass]:
        """Cut a micro-batch into passes by length. The width of an uncut one is that of its global batch."""
        read = ModelInput(self.mode, self.k, self.frames, device)
        width = self.choose_width(batch, device)
        return cut_by_length(batch.lengths, width, read) if self.may_cut else [Pass(None, width, is_full=False)]

    def choose_width(self, batch: Batch, device: torch.device) -> int:
        """Choose the width in bases for the longest promoter of the global batch."""
        return choose_width(int(batch.global_lengths.max()), self.mode, self.k, device)


class MaskedTask(Task):
    """Objective that masks one reading frame per promoter, drawn at random for each step.

    flanks: bases before and after the insert; insert_only: whether only k-mers wholly inside the insert are masked.
    """

    def __init__(self, k: int, mask_share: float, flanks: tuple[int, int] = (0, 0), insert_only: bool = False) -> None:
        super().__init__(k, "frames", 1)
        self.mask_share = mask_share
        self.flanks = flanks
        self.never_masked = flanks if insert_only else (0, 0)
        """Bases at both ends whose k-mers are never masked."""

    def draw(self, batch: Batch, generator: torch.Generator) -> BatchDraws | None:
        """Draw reading frame, masks and random k-mers of every row of the global batch."""
        return draw(batch.global_rows, self.choose_width(batch, generator.device) // self.k + 2, self.k, generator)

    def mask_batch(self, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mask one reading frame per promoter by the draws of the batch.

        Returns the ids that the model reads, the attention mask and the labels, each (rows, tokens + 2) int64. Labels
        are true ids of the tokens to predict, IGNORED elsewhere and in rows of weight 0.
        """
        assert batch.draws is not None
        draws = batch.draws
        frames = select_frames(cut_reading_frames(batch.tokens, batch.lengths, self.k), draws.frame)
        if any(self.never_masked):
            maskable = self._find_between_flanks(batch, frames.input_ids.shape[1], self.never_masked)
            draws = replace(draws, select=torch.where(maskable, draws.select, 1.0))
        read, labels = mask_kmers(frames.input_ids, frames.kmers, draws, self.mask_share)
        return read, frames.attention_mask, torch.where(batch.weight[:, None] > 0, labels, IGNORED)

    def find_masked_in_insert(self, batch: DeviceBatch, labels: torch.Tensor) -> torch.Tensor:
        """Find the k-mers to predict that lie wholly inside the insert: (rows, tokens + 2) bool, the labels' shape."""
        return self._find_between_flanks(batch, labels.shape[1], self.flanks) & (labels != IGNORED)

    def _find_between_flanks(self, batch: DeviceBatch, columns: int, flanks: tuple[int, int]) -> torch.Tensor:
        """Find the k-mers that lie wholly between the flanks: (rows, columns) bool."""
        assert batch.draws is not None
        position = torch.arange(columns, device=batch.lengths.device)
        begin = batch.draws.frame[:, None] + (position - 1) * self.k  # position 0 is [CLS]
        upstream, downstream = flanks
        return (begin >= upstream) & (begin + self.k <= batch.lengths[:, None] - downstream)


def sum_where(condition: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
    """Sum each tensor over the tokens where a condition holds: (number of tensors,) float64.

    condition: bool, of the same shape as each tensor of values.
    """
    return torch.stack([(value * condition).double().sum() for value in values])


class PretrainTask(MaskedTask):
    """Masked language model: cross-entropy over the masked k-mers."""

    def __init__(
        self, model: nn.Module, k: int, mask_share: float, flanks: tuple[int, int] = (0, 0), insert_only: bool = False
    ) -> None:
        super().__init__(k, mask_share, flanks, insert_only)
        self.model = model

    def compute_normalizer(self, batch: Batch, draws: BatchDraws | None) -> torch.Tensor | float:
        """Compute the expected number of masked k-mers in the global batch, a float64 scalar without a collective."""
        assert draws is not None
        lengths = to_device(batch.global_lengths, draws.frame.device)
        kmers = count_kmers_in_frames(lengths, self.k, self.never_masked).gather(1, draws.frame[:, None])
        return self.mask_share * kmers.sum()

    def compute_sums(self, batch: DeviceBatch) -> Sums:
        """Compute the cross-entropy in float32, in nats, summed over the masked k-mers."""
        read, attention_mask, labels = self.mask_batch(batch)
        positions = find_masked_positions(labels, self.mask_share)
        count = (labels != IGNORED).sum()
        is_real = torch.arange(len(positions), device=positions.device) < count
        target = torch.where(is_real, labels.flatten()[positions], IGNORED)
        logits = compute_kmer_logits(self.model, read, None if batch.is_full else attention_mask, positions).float()
        losses = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
        correct = logits.detach().argmax(-1) == target
        inside = losses.new_zeros(3, dtype=torch.float64)
        if not self.training:
            in_insert = self.find_masked_in_insert(batch, labels).flatten()[positions] & (target != IGNORED)
            inside = sum_where(in_insert, losses, in_insert, correct)
        loss = losses.sum()
        return Sums(loss, count, correct.sum(), loss.new_empty(0), inside)


class FinetuneTask(Task):
    """Regression of expression on standardized labels: squared error or smooth L1.

    The output is the mean over all reading frames, or the output for the overlapping tokens.

    With several labels, missing values are masked. The loss of a step is the mean over all present values of its global
    batch: sum of errors / number of present values. Every measured value has the same weight, so a label with a single
    value in a batch does not dominate its gradient. Both sums add up over ranks and micro-batches. If no value is
    missing, the loss is the mean over the labels of the loss of each label.

    model: a sequence classifier, see forward.py; its output layer becomes an ExpressionHead with the same weights.
    label_mean, label_sd: mean and standard deviation of the training labels; with several labels, one per label, or
    one number for all.
    """

    def __init__(
        self,
        model: Any,
        k: int,
        label_mean: float | Sequence[float],
        label_sd: float | Sequence[float],
        mode: str = "frames",
        loss: str = "mse",
    ) -> None:
        super().__init__(k, mode, k if mode == "frames" else 1)
        self.loss = LOSSES[loss]
        self.random_n = 0.0
        """Probability with which a base is read as N in training, however the global batch is split."""
        self.whole_number_flag = False
        """Whether the token type in training says which labels are whole numbers."""
        self.centres = read_centres(model, torch.device("cpu"))
        """Centres of the bins, (bins,) float32; None for a regression model."""
        self.model = model
        model.classifier = ExpressionHead.replace(model.classifier)
        # No buffers: DeepSpeed would round them to half precision.
        self.label_mean = torch.tensor(label_mean) if isinstance(label_mean, Sequence) else label_mean
        self.label_sd = (
            torch.tensor([*map(_positive, label_sd)]) if isinstance(label_sd, Sequence) else _positive(label_sd)
        )

    def draw(self, batch: Batch, generator: torch.Generator) -> BatchDraws | None:
        """Draw a random number per base of the global batch; None in evaluation, and without random Ns."""
        if not self.random_n or not self.training:
            return None
        return draw_bases(batch.global_rows, self.choose_width(batch, generator.device), self.k, generator)

    def compute_normalizer(self, batch: Batch, draws: BatchDraws | None) -> torch.Tensor | float:
        """Return the number of labels in the global batch, without missing ones: a scalar of at least 1."""
        del draws
        return max(batch.global_values, 1)

    def compute_sums(self, batch: DeviceBatch) -> Sums:
        """Compute the loss in float32, summed over labels, and the predictions on the scale of the labels."""
        tokens = batch.tokens
        if batch.draws is not None:
            tokens = hide_bases(tokens, batch.draws.select < self.random_n, self.k)
        types = None
        if self.whole_number_flag and self.training:
            types = (batch.expression == batch.expression.round()).long()
        logits = average_logits(self.model, tokens, batch.lengths, self.k, self.mode, batch.is_full, types)
        error, weight, prediction = self.compute_errors(logits, batch)
        loss = (error * weight).sum()
        return Sums(loss, weight.sum(), loss.new_zeros(()), prediction, loss.new_zeros(3, dtype=torch.float64))

    def compute_errors(self, logits: torch.Tensor, batch: DeviceBatch) -> tuple[torch.Tensor, ...]:
        """Compare the model's outputs, averaged over frames, with the labels.

        Returns errors, their weights, and predictions on the scale of the labels: float32 (rows,) or (rows, labels).
        """
        output = self.to_expression(logits)
        mean, sd = self._scale_on(output.device)
        target, weight = (batch.expression - mean) / sd, batch.weight
        if output.ndim == 2:
            present = target.isfinite()
            target, weight = torch.where(present, target, 0.0), present * weight[:, None]
        return self.loss(output, target, reduction="none"), weight, output.detach() * sd + mean

    def to_expression(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits into expression: the expected value over the bins; without bins, the logits themselves."""
        if self.centres is None:
            return logits
        self.centres = self.centres.to(logits.device)
        return compute_expected_value(logits, self.centres)

    def _scale_on(self, device: torch.device) -> tuple[float | torch.Tensor, float | torch.Tensor]:
        """Return mean and deviation of the labels: numbers, or (labels,) float32 on the device, copied there once."""
        if isinstance(self.label_mean, torch.Tensor):
            self.label_mean = self.label_mean.to(device)
        if isinstance(self.label_sd, torch.Tensor):
            self.label_sd = self.label_sd.to(device)
        return self.label_mean, self.label_sd


class BinsTask(FinetuneTask):
    """Fine-tuning by the cross-entropy over bins of the label; the prediction is the expected value over the bins.

    model: a sequence classifier with one output per bin, whose settings hold the centres of the bins.
    """

    def __init__(self, model: Any, k: int, mode: str = "frames") -> None:
        super().__init__(model, k, 0.0, 1.0, mode)

    def compute_errors(self, logits: torch.Tensor, batch: DeviceBatch) -> tuple[torch.Tensor, ...]:
        """Compute the cross-entropy of each promoter in nats, its weight and its prediction: (rows,) each."""
        prediction = self.to_expression(logits.detach())
        assert self.centres is not None
        return compute_bin_losses(logits, batch.expression, self.centres), batch.weight, prediction


def _positive(sd: float) -> float:
    """Replace the deviation of constant labels, which is 0, by 1."""
    return sd if sd > 0 else 1.0


def average_over_frames(
    model: nn.Module,
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    k: int,
    mode: str = "frames",
    is_full: bool = False,
) -> torch.Tensor:
    """Predict expression from the output of a sequence classifier, averaged over the frames of each promoter.

    Returns float32 (rows,), or (rows, labels) for several labels. The other arguments are those of average_logits.
    """
    logits = average_logits(model, tokens, lengths, k, mode, is_full)
    centres = read_centres(model, logits.device)
    return logits if centres is None else compute_expected_value(logits, centres)


def average_logits(
    model: nn.Module,
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    k: int,
    mode: str,
    is_full: bool,
    token_types: torch.Tensor | None = None,
) -> torch.Tensor:
    """Average the logits of a sequence classifier over the frames of each promoter.

    Returns float32 (rows,) for one output, else (rows, outputs). tokens: (rows, width) ids, one per base; lengths:
    (rows,) int64 bases; mode: see TOKEN_MODES; is_full: whether no frame has padding; token_types: (rows,) int64, None:
    all 0. Overlapping tokens are one frame.
    """
    frames = TOKEN_MODES[mode](tokens, lengths, k)
    mask = None if is_full else frames.attention_mask.flatten(0, 1)
    types = None if token_types is None else token_types.repeat_interleave(frames.input_ids.shape[1])
    logits = compute_expression_logits(model, frames.input_ids.flatten(0, 1), mask, types)
    mean: torch.Tensor = logits.float().view(tokens.shape[0], -1, *logits.shape[1:]).mean(1)
    return mean
