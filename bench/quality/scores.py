"""Scores of study.py by seed, and names of the methods, for tables.py and plots.py."""

from typing import Any

import numpy as np
from scipy import stats

METHODS = {"pretrained": "#0072b2", "scratch": "#e69f00", "ridge": "#6b7280", "cnn": "#009e73"}
"""Method -> its colour."""
LABELS = {
    "pretrained": "BERT, pretrained", "scratch": "BERT, from scratch", "ridge": "ridge on 1- to 6-mers",
    "cnn": "CNN, 82,249 parameters",
}  # fmt: skip
Results = list[dict[str, Any]]
Scores = dict[int, float]
"""Seed -> score."""


def scores(results: Results, metric: str = "pearson", **conditions: Any) -> Scores:
    """Select one metric of the trials that match all conditions (name=value)."""
    return {
        one["seed"]: one[metric] for one in results if all(one[name] == value for name, value in conditions.items())
    }


def difference_interval(values: Scores, others: Scores) -> tuple[float, float] | None:
    """Compute mean and half 95 % interval of the difference of two methods; None if fewer than two seeds have both."""
    each = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
    if len(each) < 2:
        return None
    half = stats.t.ppf(0.975, len(each) - 1) * np.std(each, ddof=1) / np.sqrt(len(each))
    return float(np.mean(each)), float(half)
