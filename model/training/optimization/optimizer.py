"""Optimizers of a stage: Adam, or Muon for the matrices of the Transformer layers.

Adam scales each weight's update by that weight's own gradients. Muon treats a matrix as a whole (model/muon).
Embeddings, biases, norms and the head stay with Adam.
"""

import re

import torch
from torch import nn

from model.config import Stage, StageName
from model.muon.optimizer import Rates, make_muon
from model.training.ds_config import DeepSpeedSettings
from pipeline.errors import UserError

LAYER = re.compile(r"\.layers?\.\d+\.")
"""Part of the name of a weight in a Transformer layer, of BERT and of ModernBERT."""


def make_optimizer(name: StageName, stage: Stage, task: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer of a stage for the trained weights of its task. Its first group holds the learning rate."""
    trained = {key: parameter for key, parameter in task.named_parameters() if parameter.requires_grad}
    matrices = {key for key, parameter in trained.items() if parameter.ndim == 2 and LAYER.search(key)}
    if stage.optimizer == "muon" and matrices:
        return make_muon(trained, matrices, Rates(stage.learning_rate, stage.muon_learning_rate, stage.weight_decay))
    # Without weight decay AdamW equals Adam; the two names follow the original system (SYSU-SAIL).
    adam = torch.optim.AdamW if name == "pretrain" or stage.weight_decay else torch.optim.Adam
    return adam(list(trained.values()), lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True)


def check_optimizer(name: StageName, stage: Stage, settings: DeepSpeedSettings) -> None:
    """Check that DeepSpeed can train with the optimizer of a stage. Raises UserError if it cannot."""
    if stage.optimizer != "muon":
        return
    if settings.zero_stage == 3:
        raise UserError(
            f"DeepSpeed config: zero_optimization.stage: expected 1 or 2 with {name}.optimizer=muon, got 3, which "
            f"divides the matrices; fix: set it to 1, or use {name}.optimizer=adam"
        )
    place = f"{name}.gradient_clipping" if stage.gradient_clipping else "DeepSpeed config: gradient_clipping"
    norm = stage.gradient_clipping or settings.values["gradient_clipping"]
    if norm:
        raise UserError(
            f"{place}: expected 0 with {name}.optimizer=muon, got {norm:g}: it would clip the orthogonal updates; fix: "
            "set it to 0"
        )
