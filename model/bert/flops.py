"""Count the floating-point operations of training, from the shape of the model.

Only matrix products count; a multiplication and an addition are two operations. A sequence has n tokens, [CLS] and
[SEP] included. Of these, m are read at the end: the masked k-mers in pretraining, the [CLS] in fine-tuning. With
L layers of width H, I in the feed-forward blocks and V token ids, the forward pass costs

    attention          L (2 n 3 H^2 + 4 n^2 H)
    rest of a layer    ((L - 1) n + m) 2 (H^2 + 2 H I)
    head, pretraining  2 m (H^2 + H V)           transform, then the logits of all ids
    head, fine-tuning  2 (H^2 + H)               pooler, then one output

and the backward pass twice that, where weights are trained. Padding, recomputation, embedding look-ups, norms and the
optimizer are not counted. FLOP utilization is these operations per second relative to the measured matmul rate
(matmul_rate).
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
"""Cost of forward and backward pass, in forward passes."""
MATMUL = {"cpu": 1024, "cuda": 8192}
"""Size of the square matrices that measure the matmul rate, by device type."""
MEASURE_S = 0.2


@dataclass(frozen=True)
class StageCost:
    """Cost of a promoter in one stage.

    mask_share: share of masked k-mers in pretraining, which reads one frame of k; None in fine-tuning, which reads all
    k frames or the overlapping tokens. never_masked: bases of both flanks, where masking leaves them out.
    """

    size: BertConfig
    k: int
    mask_share: float | None
    frozen: bool = False
    overlapping: bool = False
    never_masked: int = 0

    def of(self, lengths: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Count tokens and operations of one training step over promoters of these lengths: (rows,) bases."""
        size, width = self.size, float(self.size.hidden_size)
        bases = lengths[:, None]
        kmers = bases - self.k + 1 if self.overlapping else (bases - np.arange(self.k)) // self.k
        tokens = np.maximum(kmers, 0) + 2.0
        read, outputs, frames = np.ones_like(tokens), 1, 1
        if self.mask_share is not None:
            read = self.mask_share * np.maximum(kmers - self.never_masked / self.k, 0)
            outputs, frames = size.vocab_size, self.k  # one of k frames is drawn at random: take their mean
        attention = size.num_hidden_layers * (2 * tokens * 3 * width**2 + 4 * tokens**2 * width)
        rest = ((size.num_hidden_layers - 1) * tokens + read) * 2 * (width**2 + 2 * width * size.intermediate_size)
        head = 2 * read * (width**2 + width * outputs)
        operations = (attention + rest) * (1 if self.frozen else TRAINED) + head * TRAINED
        return float(tokens.sum() / frames), float(operations.sum() / frames)


def stage_cost(config: Config, index: Index, stage: str) -> StageCost:
    """Describe the cost of "pretrain" or "finetune" with these settings and shards."""
    size, pretrain, finetune = bert_config(config, index), config.pretrain, config.finetune
    if stage == "pretrain":
        never_masked = len(index.left_flank) + len(index.right_flank) if pretrain.masked == "insert" else 0
        return StageCost(size, index.k, pretrain.mask_share, never_masked=never_masked)
    return StageCost(size, index.k, None, finetune.start == "frozen", finetune.tokens == "overlapping")


def matmul_rate(device: torch.device, precision: str) -> float:
    """Measure operations per second of large matrix products on this device: the best trial in MEASURE_S seconds."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    size = MATMUL[device.type]
    a = torch.ones((size, size), dtype=dtype, device=device)
    b, out = torch.ones_like(a), torch.empty_like(a)
    torch.mm(a, b, out=out)
    best, began = 0.0, time.monotonic()
    while time.monotonic() - began < MEASURE_S:
        started = time.monotonic()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * size**3 / (time.monotonic() - started))
    return best
