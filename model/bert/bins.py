"""Predict a label as the expected value over bins: the model is a classifier, and a label is shared by two bins.

A label between two centres belongs to both, the more to the nearer one, linearly. So the expected value of this
distribution is the label itself. A prediction is the expected value of the softmax of the model's logits.
"""

import numpy as np
import torch
from torch.nn import functional as F

from model.bert.device_batch import to_device
from model.config import Config
from pipeline.errors import UserError
from pipeline.shards.index import Index


def bin_centres(config: Config) -> list[float]:
    """Compute the centres of the bins, evenly from the lowest to the highest valid label; empty for another loss."""
    assay, finetune = config.assay, config.finetune
    if finetune.loss != "bins":
        return []
    centres: list[float] = np.linspace(assay.min_expression, assay.max_expression, finetune.bins).tolist()
    return centres


def share_labels(labels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Share each label between the two nearest bins: float32 (rows, bins); each row sums to 1.

    labels: (rows,) float32, within the centres; centres: (bins,) float32, ascending and evenly spaced.
    """
    width = (centres[-1] - centres[0]) / (len(centres) - 1)
    return (1 - (labels[:, None] - centres).abs() / width).clamp(min=0)


def compute_bin_losses(logits: torch.Tensor, labels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy of each row in nats: float32 (rows,). Arguments: as for the other functions."""
    return F.cross_entropy(logits.float(), share_labels(labels, centres), reduction="none")


def compute_expected_value(logits: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Compute the expected value over the bins: float32 (rows,). logits: (rows, bins); centres: (bins,) float32."""
    return logits.float().softmax(-1) @ centres


def read_centres(model: torch.nn.Module, device: torch.device) -> torch.Tensor | None:
    """Read the centres of a model's bins from its settings: (bins,) float32; None for a regression model."""
    centres = getattr(model.config, "promoter_bert", {}).get("bins")
    return to_device(np.array(centres, np.float32), device) if centres else None


def check_noise_settings(config: Config, index: Index) -> None:
    """Check the settings for noisy labels against the labels of the shards.

    Raises UserError for several labels, and for bins that are wider than the standard deviation of the labels.
    """
    finetune = config.finetune
    names = {"finetune.loss=bins": finetune.loss == "bins", "finetune.whole_number_flag": finetune.whole_number_flag}
    used = [name for name, is_set in names.items() if is_set]
    if used and index.labels:
        raise UserError(f"{used[0]}: expected one label, got {len(index.labels)}; fix: omit the setting")
    if finetune.loss == "bins" and isinstance(index.label_sd, float | int):
        low, high = config.assay.min_expression, config.assay.max_expression
        width = (high - low) / (finetune.bins - 1)
        if width > index.label_sd > 0:
            needed = int((high - low) / index.label_sd) + 2
            raise UserError(
                f"finetune.bins: {finetune.bins} bins from {low:g} to {high:g} are {width:.3g} wide; expected at most "
                f"the standard deviation of the labels, {index.label_sd:.3g}; fix: finetune.bins={needed}, or a "
                "narrower range of assay.min_expression and assay.max_expression"
            )
