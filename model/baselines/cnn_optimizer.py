"""Optimizers of the convolutional network: AdamW, or Muon for its matrices."""

from typing import Literal

import torch

from model.baselines.cnn_network import Network
from model.muon.optimizer import Rates, make_muon

Optimizer = Literal["adam", "muon"]
WEIGHT_DECAY = 0.1
"""Weight decay with AdamW."""
ENDS = ("stem", "output")
"""First and last layer, which stay with AdamW, as embeddings and heads do."""


def make_optimizer(
    network: Network, optimizer: Optimizer, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Make the optimizer of all weights of a network."""
    if optimizer == "adam":
        return torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=weight_decay, fused=True)
    named = dict(network.named_parameters())
    matrices = {name for name, weights in named.items() if weights.ndim > 1 and not name.startswith(ENDS)}
    return make_muon(named, matrices, Rates(learning_rate, learning_rate, weight_decay))
