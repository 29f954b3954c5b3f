"""Plot a saturation mutagenesis: importance of each base as bars, and effects as a map of position x base."""

from typing import TYPE_CHECKING

import numpy as np

from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult
from pipeline.reporting.palette import BLUE, GREEN, GREY, ORANGE
from pipeline.reporting.svg import Draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MAX_LINE_BASES = 50
"""Positions per line; a longer insert is wrapped."""
LINE_HEIGHT_INCHES = 2.0
BASE_COLOURS = dict(zip("ACGTN", (GREEN, BLUE, "#000000", ORANGE, GREY), strict=True))


def wrap_lines(length: int) -> list[range]:
    """Split the positions of an insert into lines, all but the last equally long."""
    lines = -(-length // MAX_LINE_BASES)
    width = -(-length // lines)
    return [range(start, min(start + width, length)) for start in range(0, length, width)]


def plot_height(length: int) -> float:
    """Return the height of the plot in inches. length: bases of the insert."""
    return LINE_HEIGHT_INCHES * len(wrap_lines(length)) + 0.7


def effect_plot(result: MutagenesisResult) -> Draw:
    """Return what draws the plot: per line, bars of importance, the bases, and the map of effects below."""

    def draw(figure: "Figure") -> None:
        from matplotlib.colors import LinearSegmentedColormap

        lines = wrap_lines(len(result.insert))
        colours = LinearSegmentedColormap.from_list("effect", [ORANGE, "#ffffff", BLUE])
        largest = float(np.abs(result.effects).max()) or 1.0
        low, high = min(float(result.importance.min()), 0.0), max(float(result.importance.max()), 0.0)
        margin = 0.05 * (high - low) or 1.0
        heights = [ratio for _ in lines for ratio in (1.1, 1.0)]
        axes = figure.subplots(2 * len(lines), 1, height_ratios=heights, squeeze=False)[:, 0]
        for line, bars, cells in zip(lines, axes[::2], axes[1::2], strict=True):
            _bars(bars, result, line)
            bars.set_ylim(low - margin, high + margin)
            mesh = _cells(cells, result, line, colours, largest)
            for panel in (bars, cells):
                panel.set_xlim(line.start - 0.5, line.start + len(lines[0]) - 0.5)
        figure.colorbar(
            mesh, ax=list(axes), location="top", shrink=0.5, aspect=40, pad=0.02,
            label="effect of the substitution on expression (scale of the labels)",
        ).outline.set_visible(False)  # fmt: skip

    return draw


def _bars(axes: "Axes", result: MutagenesisResult, line: range) -> None:
    values = result.importance[line.start : line.stop]
    axes.bar(list(line), values, width=0.8, color=[BLUE if value > 0 else ORANGE for value in values])
    axes.axhline(0, color="#6b7280", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.set_ylabel("importance")
    axes.set_xticks(list(line), list(result.insert[line.start : line.stop]), family="monospace", weight="bold")
    axes.tick_params(axis="x", length=0)
    for label in axes.get_xticklabels():
        label.set_color(BASE_COLOURS[label.get_text()])


def _cells(axes: "Axes", result: MutagenesisResult, line: range, colours: "Colormap", largest: float) -> "QuadMesh":
    rows = slice(line.start, line.stop)
    edges = np.arange(line.start, line.stop + 1) - 0.5
    mesh = axes.pcolormesh(
        edges, np.arange(len(BASES) + 1) - 0.5, result.effects[rows].T,
        cmap=colours, vmin=-largest, vmax=largest, edgecolors="#ffffff", linewidth=0.5,
    )  # fmt: skip
    reference = np.argwhere(~result.is_substitution[rows])
    axes.plot(reference[:, 0] + line.start, reference[:, 1], ".", color="#6b7280", markersize=3, linestyle="none")
    axes.set_ylim(len(BASES) - 0.5, -0.5)
    axes.set_yticks(range(len(BASES)), list(BASES), family="monospace")
    ticks = [place for place in line if (place + 1) % 10 == 0 or place == 0]
    axes.set_xticks(ticks, [str(place + 1) for place in ticks])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return mesh
