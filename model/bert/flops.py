"""Floating-point operations of training, from the shape of the model.

Counted are the matrix products, a multiplication and an addition as two. A sequence of n tokens ([CLS] and [SEP] among
them) of which m are read at the end (pretraining: the masked k-mers; fine-tuning: the [CLS]), through L layers of width
H with I inside the feed-forward blocks, costs forward

    attention          L (2 n 3 H^2 + 4 n^2 H)
    rest of a layer    ((L - 1) n + m) 2 (H^2 + 2 H I)
    head, pretraining  2 m (H^2 + H V)           transform, then the V ids of the vocabulary
    head, fine-tuning  2 (H^2 + H)               pooler, then one output

and backward twice that, where weights are trained. Padding, recomputation, look-ups, norms and the optimizer count
nothing: utilisation is useful operations over what the devices do in plain matrix products (matmul_rate).
"""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import BertConfig

from model.bert.build import bert_config
from model.config import Config
from pipeline.shards.index import Index

TRAINED = 3
"""Forward and backward, in forwards."""
MATMUL = {"cpu": 1024, "cuda": 8192}
"""Size of the square matrices that the rate is measured with."""
MEASURE_SECONDS = 0.2


@dataclass(frozen=True)
class StageCost:
    """What a promoter costs in one stage. mask_share: pretraining, one frame of k; None: fine-tuning, on all k frames
    or on the overlapping tokens. never_masked: bases of both flanks, where nothing is masked in them."""

    size: BertConfig
    k: int
    mask_share: float | None
    frozen: bool = False
    overlapping: bool = False
    never_masked: int = 0

    def of(self, lengths: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Tokens and operations of one training step over promoters of so many bases: (rows,)."""
        bases = lengths[:, None]
        kmers = bases - self.k + 1 if self.overlapping else (bases - np.arange(self.k)) // self.k
        tokens = np.maximum(kmers, 0) + 2.0
        read = np.ones_like(tokens)
        if self.mask_share is not None:
            read = self.mask_share * np.maximum(kmers - self.never_masked / self.k, 0)
        operations = self._forward(tokens, read)
        if self.mask_share is not None:  # frames are drawn: their mean is what is expected
            return float(tokens.mean(1).sum()), float(operations.mean(1).sum())
        return float(tokens.sum()), float(operations.sum())

    def _forward(self, tokens: npt.NDArray[np.float64], read: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of sequences of so many tokens, of which so many are read at the end; backward included."""
        size, width = self.size, float(self.size.hidden_size)
        lm = self.mask_share is not None
        attention = size.num_hidden_layers * (2 * tokens * 3 * width**2 + 4 * tokens**2 * width)
        rest = ((size.num_hidden_layers - 1) * tokens + read) * 2 * (width**2 + 2 * width * size.intermediate_size)
        head = 2 * read * (width**2 + width * (size.vocab_size if lm else 1))
        return np.asarray((attention + rest) * (1 if self.frozen else TRAINED) + head * TRAINED)


def stage_cost(config: Config, index: Index, stage: str) -> StageCost:
    """Of "pretrain" or "finetune" with these settings and shards."""
    pretraining, finetune = stage == "pretrain", config.finetune
    flanks = len(index.left_flank) + len(index.right_flank)
    return StageCost(
        bert_config(config, index),
        index.k,
        mask_share=config.pretrain.mask_share if pretraining else None,
        frozen=not pretraining and finetune.start == "frozen",
        overlapping=not pretraining and finetune.tokens == "overlapping",
        never_masked=flanks if pretraining and config.pretrain.masked == "insert" else 0,
    )


def matmul_rate(device: torch.device, precision: str) -> float:
    """Operations a second of large matrix products on this device, best of those tried in a fifth of a second."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    size = MATMUL[device.type]
    a = torch.ones((size, size), dtype=dtype, device=device)
    b, out = torch.ones_like(a), torch.empty_like(a)
    torch.mm(a, b, out=out)
    best, began = 0.0, time.monotonic()
    while time.monotonic() - began < MEASURE_SECONDS:
        started = time.monotonic()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * size**3 / (time.monotonic() - started))
    return best
