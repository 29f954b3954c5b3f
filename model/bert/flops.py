"""Count the floating-point operations of training, from the shape of the model.

Only matrix products count; one multiplication and one addition are two operations. A sequence has n tokens, [CLS] and
[SEP] included. The head reads m of these: in pretraining the masked k-mers, or all tokens on hidden spans; in
fine-tuning the [CLS] for BERT, and all tokens for ModernBERT. For L layers of width H, feed-forward width I and V token
ids, the forward pass costs

    attention          L (2 n 3 H^2 + 4 n^2 H)
    rest of a layer    ((L - 1) n + m) 2 (H^2 + 2 H I)       ModernBERT: 3 H I, as its feed-forward blocks are gated
    head, pretraining  2 m (H^2 + H V)                       transform, then the logits of all ids
    head, spans        2 n (H^2 + 4 k H)                     transform of ModernBERT, then the bases of each token
    head, fine-tuning  2 (H^2 + H E)                         pooler, then E outputs, one per label
    composed k-mers    2 n (4 k C + C H)                     with C channels; of the tokens that are read

The backward pass costs twice as much, for trained weights only. Padding, recomputation, embedding look-ups, norms and
the optimizer are not counted. The head of pretraining needs the table of all composed k-mers once per micro-batch; its
2 V (4 k C + C H) operations are not counted, either. Local layers compute all n^2 pairs and mask them, so these count.
This is the model-FLOP count of PaLM (Chowdhery et al. 2022, appendix B) without the layers' unread outputs. FLOP
utilization is this count per second, relative to the rate of measure_matmul_rate.
"""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from model.bert.build import Size, make_bert_config, make_pretraining_config
from model.bert.kmer_embedding import BASES, CHANNELS
from model.config import Config
from pipeline.shards.index import Index

TRAINED = 3
"""Cost of a forward and a backward pass, in forward passes."""
MATMUL = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices that measure the matmul rate, by device type."""
MEASURE_S = 0.2
"""Duration of that measurement."""
NOMINAL = {
    "H200": (989e12, 494e12), "H100 PCIe": (756e12, 378e12), "H100": (989e12, 494e12), "A100": (312e12, 156e12),
    "L40S": (362e12, 183e12), "V100": (125e12, 0.0),
}  # fmt: skip
"""Part of a GPU's name -> nominal rates without sparsity in FLOP/s: fp16 (and bf16), TF32. From NVIDIA's data sheets;
the names of the PCIe and SXM versions of some GPUs do not differ."""


@dataclass(frozen=True)
class StageCost:
    """Cost model of a training step in one stage.

    mask_share: fraction of the k-mers to predict in pretraining, which reads one of k frames; None in fine-tuning,
    which reads all k frames or the overlapping tokens. frozen: whether only the head is trained. never_masked: bases of
    both flanks if these are excluded from masking. composed: whether k-mer vectors are composed from their bases.
    spans: whether it pretrains on hidden spans, which reads the overlapping tokens and predicts bases of each.
    """

    size: Size
    k: int
    mask_share: float | None
    frozen: bool = False
    overlapping: bool = False
    never_masked: int = 0
    composed: bool = False
    spans: bool = False

    def count(self, lengths: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Count the tokens and floating-point operations of one training step.

        lengths: (rows,) bases of the promoters. Returns (tokens, operations), summed over the rows.
        """
        size, width = self.size, float(self.size.hidden_size)
        bases = lengths[:, None]
        kmers = bases - self.k + 1 if self.overlapping else (bases - np.arange(self.k)) // self.k
        tokens = np.maximum(kmers, 0) + 2.0
        is_gated = size.model_type == "modernbert"
        heads, outputs, frames = np.ones_like(tokens), size.num_labels, 1
        read = tokens if is_gated else heads
        if self.spans:
            heads = read = tokens
        if self.mask_share is not None:
            heads = read = self.mask_share * np.maximum(kmers - self.never_masked / self.k, 0)
            outputs, frames = size.vocab_size, self.k  # one of k frames is drawn at random, so take their mean
        attention = size.num_hidden_layers * (2 * tokens * 3 * width**2 + 4 * tokens**2 * width)
        block = width**2 + (3 if is_gated else 2) * width * size.intermediate_size
        rest = ((size.num_hidden_layers - 1) * tokens + read) * 2 * block
        transform = 0.0 if self.spans and not is_gated else width**2
        head = 2 * heads * (transform + width * outputs)
        composition = 2 * tokens * CHANNELS * width * (BASES * self.k + width) * self.composed
        operations = (attention + rest + composition) * (1 if self.frozen else TRAINED) + head * TRAINED
        return float(tokens.sum() / frames), float(operations.sum() / frames)


def make_stage_cost(config: Config, index: Index, stage: str) -> StageCost:
    """Make the cost model of a stage, "pretrain" or "finetune", for these settings and shards."""
    pretrain, finetune, composed = config.pretrain, config.finetune, config.model.kmer_embedding == "composed"
    if stage == "finetune":
        size, overlapping = make_bert_config(config, index), finetune.tokens == "overlapping"
        return StageCost(size, index.k, None, finetune.start == "frozen", overlapping, composed=composed)
    size = make_pretraining_config(config, index)
    if pretrain.objective == "spans":
        return StageCost(size, index.k, None, overlapping=True, composed=composed, spans=True)
    never_masked = len(index.left_flank) + len(index.right_flank) if pretrain.masked == "insert" else 0
    return StageCost(size, index.k, pretrain.mask_share, never_masked=never_masked, composed=composed)


def measure_matmul_rate(device: torch.device, precision: str) -> float:
    """Measure the rate of large matrix products on a device, in operations per second: the best of MEASURE_S seconds.

    precision: "fp16", "bf16" or "fp32".
    """
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    size = MATMUL[device.type]
    # A GPU draws less power on constant values, so its clock, and the rate, would be higher than in training.
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn((size, size), generator=generator, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    best, began = 0.0, time.monotonic()
    while time.monotonic() - began < MEASURE_S:
        started = time.monotonic()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * size**3 / (time.monotonic() - started))
    return best


def nominal_rate(device: torch.device, precision: str, tf32: bool) -> float | None:
    """Return the nominal rate of matrix products on a GPU, in operations per second; None if it is not known.

    precision: "fp16", "bf16" or "fp32"; tf32: whether float32 products use TF32.
    """
    if device.type != "cuda" or (precision == "fp32" and not tf32):
        return None
    name = torch.cuda.get_device_name(device)
    rates = next((rates for part, rates in NOMINAL.items() if part in name), (0.0, 0.0))
    return rates[precision == "fp32"] or None
