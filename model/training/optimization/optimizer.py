"""Optimizers of a stage: Adam, or Muon for the matrices of the Transformer layers.

Adam scales each weight's update by that weight's own gradients. Muon (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/) treats a matrix as a whole: its momentum is replaced by the nearest
orthogonal matrix, so that all directions of the matrix learn at the same rate, not only the few with large gradients.
Embeddings, biases, norms and the head stay with Adam.
"""

import re

import torch
from torch import nn

from model.config import Stage, StageName
from model.training.ds_config import DeepSpeedSettings
from pipeline.errors import UserError

LAYER = re.compile(r"\.layers?\.\d+\.")
"""Part of the name of a weight in a Transformer layer, of BERT and of ModernBERT."""
MOMENTUM = 0.95
"""Momentum of Muon, as Jordan et al. recommend."""


def make_optimizer(name: StageName, stage: Stage, task: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer of a stage for the trained weights of its task. Its first group holds the learning rate."""
    trained = {key: parameter for key, parameter in task.named_parameters() if parameter.requires_grad}
    matrices = {key for key, parameter in trained.items() if parameter.ndim == 2 and LAYER.search(key)}
    if stage.optimizer == "muon" and matrices:
        return _make_muon(stage, trained, matrices)
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


def _make_muon(stage: Stage, trained: dict[str, nn.Parameter], matrices: set[str]) -> torch.optim.Optimizer:
    """Make DeepSpeed's Muon for matrices, given by their names, with AdamW for the other trained weights."""
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    others: list[nn.Parameter] = []
    of_muon: list[nn.Parameter] = []
    for key, parameter in trained.items():
        parameter.use_muon = key in matrices  # type: ignore[attr-defined]  # read by DeepSpeed's ZeRO
        (of_muon if key in matrices else others).append(parameter)
    decay, rate = stage.weight_decay, stage.muon_learning_rate
    adam = {"lr": stage.learning_rate, "weight_decay": decay, "betas": (0.9, 0.999), "eps": 1e-8}
    muon = {"lr": rate, "weight_decay": decay, "momentum": MOMENTUM, "ns_method": "standard"}
    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(
        [{"params": others, "use_muon": False, **adam}, {"params": of_muon, "use_muon": True, **muon}],
        adam_optimizer=torch.optim.AdamW,
        adam_optimizer_kwargs={"fused": True},
    )
    return optimizer
