"""Muon for matrices, with AdamW for all other weights: one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) treats a matrix as a whole: its momentum is
replaced by the nearest orthogonal matrix, so that all directions of the matrix learn at the same rate, not only the few
with large gradients.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import torch
from torch import nn

MOMENTUM = 0.95
"""Momentum of Muon, as Jordan et al. recommend."""


@dataclass(frozen=True)
class Rates:
    """Learning rates of AdamW and of Muon, and the decoupled weight decay of both."""

    adam: float
    muon: float
    weight_decay: float


def make_muon(weights: Mapping[str, nn.Parameter], matrices: Set[str], rates: Rates) -> torch.optim.Optimizer:
    """Make DeepSpeed's Muon for matrices, with AdamW for the other weights. Its first group is that of AdamW.

    weights: all trained ones, by name; matrices: names of those that Muon trains.
    """
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    others: list[nn.Parameter] = []
    of_muon: list[nn.Parameter] = []
    for name, each in weights.items():
        each.use_muon = name in matrices  # type: ignore[attr-defined]  # read by DeepSpeed's ZeRO
        (of_muon if name in matrices else others).append(each)
    decay = rates.weight_decay
    adam = {"lr": rates.adam, "weight_decay": decay, "betas": (0.9, 0.999), "eps": 1e-8}
    muon = {"lr": rates.muon, "weight_decay": decay, "momentum": MOMENTUM, "ns_method": "standard"}
    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(
        [{"params": others, "use_muon": False, **adam}, {"params": of_muon, "use_muon": True, **muon}],
        adam_optimizer=torch.optim.AdamW,
        adam_optimizer_kwargs={"fused": True},
    )
    return optimizer
