"""Plots of docs/results.md."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality.scores import LABELS, METHODS, Results, difference_interval, scores
from bench.quality.trials import MUON, SIZES, SPLITS


def plot(results: Results, path: Path) -> None:
    """Plot Pearson against training promoters: one dot per seed, lines through the means, one panel per split."""

    def draw_split(axes: Any, split: str) -> None:
        for method, colour in METHODS.items():
            by_size = {n: scores(results, study="sizes", split=split, size=n, variant=method) for n in SIZES}
            draw(axes, {n: list(values.values()) for n, values in by_size.items() if values}, colour, LABELS[method])

    plot_splits(path, "Pearson, 6,000 held-out promoters", draw_split)


def plot_gain(results: Results, path: Path) -> None:
    """Plot what pretraining adds, by training promoters: means with 95 % intervals, one panel per split."""
    spans = ("spans", f"{MUON}-pretrained", "presets", MUON, "#d55e00", 1.07)
    models = {
        "3-mers in frames, hidden k-mers": ("sizes", "pretrained", "sizes", "scratch", "#0072b2", 0.93),
        "composed 7-mers, hidden spans": spans,
    }

    def draw_split(axes: Any, split: str) -> None:
        axes.axhline(0, color="#6b7280", linewidth=1)
        for label, (study, variant, other, without, colour, shift) in models.items():
            gains = {
                size: difference_interval(
                    scores(results, study=study, split=split, size=size, variant=variant),
                    scores(results, study=other, split=split, size=size, variant=without),
                )
                for size in SIZES
            }
            points = [(size * shift, *gain) for size, gain in gains.items() if gain is not None]
            if points:
                place, mean, half = zip(*points, strict=True)
                axes.errorbar(place, mean, half, fmt="o", color=colour, capsize=3, label=label)

    plot_splits(path, "Pearson with minus without pretraining", draw_split)


def plot_splits(path: Path, quantity: str, draw_split: Callable[[Any, str], None]) -> None:
    """Plot a quantity against training promoters, one panel per split. draw_split: draws the panel of a split."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "quality", "svg.fonttype": "none"})
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    for axes, split in zip(panels, SPLITS, strict=True):
        draw_split(axes, split)
        axes.set(xscale="log", xlabel="training promoters", title=f"{split} split")
        axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(quantity)
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def draw(axes: Any, by_size: dict[int, Sequence[float]], colour: str, label: str) -> None:
    """Draw the line and dots of one method."""
    for size, values in by_size.items():
        axes.plot([size] * len(values), values, ".", color=colour, markersize=4)
    axes.plot(list(by_size), [np.mean(values) for values in by_size.values()], "-", color=colour, label=label)
