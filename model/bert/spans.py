"""Pretraining on hidden spans of bases, for models of overlapping k-mers.

The neighbours of an overlapping k-mer contain its bases, so masking k-mers one by one hides nothing. Here spans of
bases are hidden, as SpanBERT hides spans of words (Joshi et al. 2020, https://arxiv.org/abs/1907.10529). Each k-mer
that contains a hidden base becomes [MASK]. From the state of each masked token, the output layer predicts its hidden
bases, each by itself: 4 k outputs per token. A softmax over all k-mers would cost more than the rest of the model.

The spans do not depend on how the global batch is split: whether a span begins at a base is a function of the step, the
row in the global batch and the base.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch.nn import functional as F

from model.bert.device_batch import DeviceBatch, to_device
from model.bert.forward import compute_token_logits
from model.bert.frames import take_overlapping_kmers
from model.bert.kmer_embedding import BASES, read_bases
from model.bert.masking import IGNORED, BatchDraws, draw_bases
from model.bert.objectives import Sums, Task, sum_where
from pipeline.stream.stream import Batch
from pipeline.tokens.kmers import ALPHABET, MASK

SHORTEST, LONGEST = 4, 12
"""Least and most bases of a span; all lengths are equally frequent. Spans may overlap."""


def name_base_outputs(k: int) -> list[str]:
    """Name the outputs per token, in their order: `base 1 is A`, ..."""
    return [f"base {place + 1} is {base}" for place in range(k) for base in ALPHABET[:BASES]]


def find_start_probability(share: float) -> float:
    """Find the probability that a span begins at a base, if a fraction `share` of the bases is to be hidden.

    A base is visible if no span begins j bases before it that is longer than j: share = 1 - product over j of
    (1 - p P(length > j)).
    """
    longer = np.clip((LONGEST - np.arange(LONGEST)) / (LONGEST - SHORTEST + 1), None, 1.0)
    return float(brentq(lambda p: 1 - np.prod(1 - p * longer) - share, 0.0, 1.0))


def find_hidden_bases(draws: torch.Tensor, start_probability: float) -> torch.Tensor:
    """Find the bases in spans: bool (rows, bases).

    draws: (rows, LONGEST - 1 + bases) float32 in [0, 1). Each number decides whether a span begins at its place, and
    its length. The first LONGEST - 1 places lie before the first base, so that all bases are hidden equally often.
    """
    begins, bases = draws < start_probability, draws.shape[1] - LONGEST + 1
    length = SHORTEST + (draws / start_probability * (LONGEST - SHORTEST + 1)).long()
    is_hidden = torch.zeros_like(begins[:, :bases])
    for place in range(LONGEST):
        longer = (begins & (length > place))[:, LONGEST - 1 - place :]
        is_hidden |= longer[:, :bases]
    return is_hidden


class SpanTask(Task):
    """Objective on hidden spans: cross-entropy over the hidden bases of each masked token.

    model: for token classification, with 4 k outputs; share: fraction of the bases to hide; flanks: bases before and
    after the insert; insert_only: whether only bases of the insert are hidden.
    """

    def __init__(
        self, model: Any, k: int, share: float, flanks: tuple[int, int] = (0, 0), insert_only: bool = False
    ) -> None:
        super().__init__(k, "overlapping", 1)
        self.model = model
        self.share = share
        self.start_probability = find_start_probability(share)
        self.flanks = flanks
        self.never_hidden = flanks if insert_only else (0, 0)
        """Bases at both ends that are never hidden."""
        self.target_bases = 1

    def draw(self, batch: Batch, generator: torch.Generator) -> BatchDraws | None:
        """Draw a random number per base of every row of the global batch, and of the places before it."""
        width = self.choose_width(batch, generator.device)
        return draw_bases(batch.global_rows, width, self.k, generator, before=LONGEST - 1)

    def compute_normalizer(self, batch: Batch, draws: BatchDraws | None) -> torch.Tensor | float:
        """Compute about the expected number of predicted bases of the global batch, without a collective."""
        assert draws is not None
        lengths = to_device(batch.global_lengths, draws.frame.device)
        tokens = (lengths - sum(self.never_hidden) - self.k + 1).clamp(min=1)
        return self.share * self.k * tokens.double().sum()

    def hide_batch(self, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Hide spans of bases by the draws of the batch.

        Returns the ids that the model reads and the attention mask, (rows, tokens + 2) int64, and the bases to predict,
        (rows, tokens, k) int64: 0 to 3, IGNORED for all others and in rows of weight 0. Ns are not predicted.
        """
        assert batch.draws is not None
        frames = take_overlapping_kmers(batch.tokens, batch.lengths, self.k)
        read = frames.input_ids[:, 0]
        is_hidden = find_hidden_bases(batch.draws.select, self.start_probability)
        is_hidden = is_hidden & self._find_between(batch, is_hidden.shape[1], self.never_hidden)
        in_kmer = is_hidden.unfold(1, self.k, 1)
        is_token = torch.arange(read.shape[1] - 2, device=read.device) < frames.kmers
        in_kmer = in_kmer & is_token[..., None]
        read[:, 1:-1] = torch.where(in_kmer.any(-1), MASK, read[:, 1:-1])
        bases = read_bases(batch.tokens.long(), self.k)
        is_target = in_kmer & (bases < BASES) & (batch.weight > 0)[:, None, None]
        return read, frames.attention_mask[:, 0], torch.where(is_target, bases, IGNORED)

    def predict_bases(self, read: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Compute the logits of the bases of each token: float32 (rows, tokens, k, 4)."""
        logits = compute_token_logits(self.model, read, attention_mask)[:, 1:-1].float()
        return logits.view(*logits.shape[:2], self.k, BASES)

    def compute_sums(self, batch: DeviceBatch) -> Sums:
        """Compute the cross-entropy in float32, in nats, summed over the hidden bases of the masked tokens."""
        read, attention_mask, target = self.hide_batch(batch)
        logits = self.predict_bases(read, None if batch.is_full else attention_mask)
        losses = F.cross_entropy(logits.flatten(0, 2), target.flatten(), ignore_index=IGNORED, reduction="none")
        correct = logits.detach().argmax(-1) == target
        return self.add_up(batch, losses.view_as(target), correct, target)

    def add_up(self, batch: DeviceBatch, losses: torch.Tensor, correct: torch.Tensor, target: torch.Tensor) -> Sums:
        """Add up losses and correct predictions, all (rows, tokens, k), over the bases to predict."""
        is_target, inside = target != IGNORED, losses.new_zeros(3, dtype=torch.float64)
        if not self.training:
            bases = target.shape[1] + self.k - 1
            in_insert = self._find_between(batch, bases, self.flanks).unfold(1, self.k, 1) & is_target
            inside = sum_where(in_insert, losses, in_insert, correct)
        loss = losses.sum()
        return Sums(loss, is_target.sum(), (correct & is_target).sum(), loss.new_empty(0), inside)

    def _find_between(self, batch: DeviceBatch, bases: int, flanks: tuple[int, int]) -> torch.Tensor:
        """Find the bases between the flanks: bool (rows, bases)."""
        position = torch.arange(bases, device=batch.lengths.device)
        return (position >= flanks[0]) & (position < batch.lengths[:, None] - flanks[1])
