"""Labels of a model, and the columns of their predictions."""

from collections.abc import Mapping
from typing import Any

ONE_LABEL = "expression"
"""Name of the label of a model that has one."""


def model_labels(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """List the labels that a model directory records; ONE_LABEL for a model with one label."""
    return tuple(facts.get("labels") or (ONE_LABEL,))


def label_columns(name: str, labels: tuple[str, ...]) -> list[str]:
    """Name the columns of a value per label: `effect_Dev`, `effect_Hk`, or `effect` for one label."""
    return [f"{name}_{label}" for label in labels] if len(labels) > 1 else [name]
