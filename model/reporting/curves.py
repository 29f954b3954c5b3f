"""What a run logged, as curves over epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.runs.read import RunFiles

POINTS = 400
"""A curve shows at most: of longer ones, means of neighbouring readings."""


@dataclass(frozen=True)
class Series:
    """A metric of a stage: epochs and values, (points,) each."""

    epochs: list[float]
    values: list[float]


def series(run: RunFiles, stage: str, metric: str) -> Series:
    """All that was logged of a metric, thinned to POINTS; empty where nothing was."""
    lines = [line for line in run.metrics if line["stage"] == stage and metric in line]
    size = -(-len(lines) // POINTS)
    parts = [lines[start : start + size] for start in range(0, len(lines), size)] if lines else []
    return Series([_mean(part, "epoch") for part in parts], [_mean(part, metric) for part in parts])


def evaluations(run: RunFiles, stage: str) -> list[dict[str, Any]]:
    """The lines of a stage's evaluations, in their order."""
    return [line for line in run.metrics if line["stage"] == stage and "valid_loss" in line]


def _mean(lines: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(line[name] for line in lines)) / len(lines)
