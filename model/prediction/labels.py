"""Labels of a model, and the columns of their predictions."""

from collections.abc import Mapping
from typing import Any


def model_labels(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """List the labels that a model records: the names of several, or one empty name for a model with one label."""
    labels = tuple(facts.get("labels") or ())
    return labels if len(labels) > 1 else ("",)


def column_of(name: str, label: str) -> str:
    """Name a column of a label: `effect_Dev` for label Dev, `effect` for the only label."""
    return f"{name}_{label}" if label else name
