"""Plot of a saturation mutagenesis: importance of each base as bars, and effects as a map of position x base."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult
from pipeline.reporting.palette import BLACK, BLUE, GREEN, GREY, LINE_GREY, ORANGE
from pipeline.reporting.svg import plot, render_svg
from pipeline.reporting.text import with_unit

MAX_LINE_BASES = 50
"""Positions per line of the plot; a longer insert is wrapped."""
LINE_HEIGHT_INCHES = 2.0
BAR_GREY = "#8a94a0"
BASE_COLOURS = dict(zip("ACGTN", (GREEN, BLUE, BLACK, ORANGE, GREY), strict=True))
EFFECT_COLOURS = LinearSegmentedColormap.from_list("effect", [ORANGE, "#ffffff", BLUE])


def render_effects(result: MutagenesisResult, title: str, name: str = "effects") -> str:
    """Draw an <svg> element: per line, the bars of importance, the bases, and the map of effects below.

    name: unique on the page.
    """
    bases = len(result.insert)
    count = -(-bases // MAX_LINE_BASES)
    width = -(-bases // count)
    lines = [range(start, min(start + width, bases)) for start in range(0, bases, width)]
    return render_svg(name, title, _effect_plot(result, lines), LINE_HEIGHT_INCHES * len(lines) + 0.7)


@plot
def _effect_plot(figure: Figure, result: MutagenesisResult, lines: list[range]) -> None:
    low, high = min(float(result.importance.min()), 0.0), max(float(result.importance.max()), 0.0)
    margin = 0.05 * (high - low) or 1.0
    axes = figure.subplots(2 * len(lines), 1, height_ratios=[1.1, 1.0] * len(lines), squeeze=False)[:, 0]
    for line, bars, cells in zip(lines, axes[::2], axes[1::2], strict=True):
        _draw_bars(bars, result, line)
        bars.set_ylim(low - margin, high + margin)
        mesh = _draw_cells(cells, result, line)
        for panel in (bars, cells):
            panel.set_xlim(line.start - 0.5, line.start + len(lines[0]) - 0.5)
    figure.colorbar(
        mesh, ax=list(axes), location="top", shrink=0.5, aspect=40, pad=0.02,
        label=with_unit("effect of the substitution on predicted expression", result.unit),
    ).outline.set_visible(False)  # fmt: skip


def _draw_bars(axes: Axes, result: MutagenesisResult, line: range) -> None:
    values = result.importance[line.start : line.stop]
    axes.bar(list(line), values, width=0.8, color=BAR_GREY)  # colours mean effects
    axes.axhline(0, color=LINE_GREY, linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.set_ylabel(with_unit("importance", result.unit or "arbitrary\nunits").replace(" (", "\n(", 1))
    axes.set_xticks(list(line), list(result.insert[line.start : line.stop]), family="monospace", weight="bold")
    axes.tick_params(axis="x", length=0)
    for label in axes.get_xticklabels():
        label.set_color(BASE_COLOURS[label.get_text()])


def _draw_cells(axes: Axes, result: MutagenesisResult, line: range) -> QuadMesh:
    rows = slice(line.start, line.stop)
    largest = float(np.abs(result.effects).max()) or 1.0
    edges = np.arange(line.start, line.stop + 1) - 0.5
    mesh = axes.pcolormesh(
        edges, np.arange(len(BASES) + 1) - 0.5, result.effects[rows].T,
        cmap=EFFECT_COLOURS, vmin=-largest, vmax=largest, edgecolors="#ffffff", linewidth=0.5,
    )  # fmt: skip
    reference = np.argwhere(~result.is_substitution[rows])
    axes.plot(reference[:, 0] + line.start, reference[:, 1], ".", color=LINE_GREY, markersize=3, linestyle="none")
    axes.set_ylim(len(BASES) - 0.5, -0.5)
    axes.set_yticks(range(len(BASES)), list(BASES), family="monospace")
    axes.set_ylabel("new base")
    ticks = [place for place in line if (place + 1) % 10 == 0 or place == line.start]
    axes.set_xticks(ticks, [str(place + 1) for place in ticks])
    axes.set_xlabel("position in the insert (bases)")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return mesh
