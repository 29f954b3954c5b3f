"""The picture of a mutagenesis: position x base as a map of effects, the insert's letters, and what each is worth."""

from typing import TYPE_CHECKING

import numpy as np

from model.interpretation.saturation_mutagenesis import BASES, Mutagenesis
from pipeline.reporting.svg import BLUE, GREEN, GREY, ORANGE, Draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

LINE_BASES = 50
"""Positions side by side at most; a longer insert goes on below."""
LINE_HEIGHT = 2.0
"""Inches of a line of the map."""
LETTER_COLOURS = dict(zip("ACGTN", (GREEN, BLUE, "#000000", ORANGE, GREY), strict=True))


def lines_of(length: int) -> list[range]:
    """The positions of an insert in lines, all but the last equally long."""
    lines = -(-length // LINE_BASES)
    width = -(-length // lines)
    return [range(start, min(start + width, length)) for start in range(0, length, width)]


def map_height(length: int) -> float:
    """Inches of the whole picture."""
    return LINE_HEIGHT * len(lines_of(length)) + 0.7


def effect_map(found: Mutagenesis) -> Draw:
    """For each line, bars of importance, the letters, and the map below them."""

    def draw(figure: "Figure") -> None:
        from matplotlib.colors import LinearSegmentedColormap

        lines = lines_of(len(found.insert))
        colours = LinearSegmentedColormap.from_list("effect", [ORANGE, "#ffffff", BLUE])
        most = float(np.abs(found.effects).max()) or 1.0
        low, high = min(float(found.importance.min()), 0.0), max(float(found.importance.max()), 0.0)
        room = 0.05 * (high - low) or 1.0
        heights = [ratio for _ in lines for ratio in (1.1, 1.0)]
        axes = figure.subplots(2 * len(lines), 1, height_ratios=heights, squeeze=False)[:, 0]
        for line, bars, cells in zip(lines, axes[::2], axes[1::2], strict=True):
            _bars(bars, found, line)
            bars.set_ylim(low - room, high + room)
            mesh = _cells(cells, found, line, colours, most)
            for both in (bars, cells):
                both.set_xlim(line.start - 0.5, line.start + len(lines[0]) - 0.5)
        figure.colorbar(
            mesh, ax=list(axes), location="top", shrink=0.5, aspect=40, pad=0.02,
            label="effect of the substitution on expression (scale of the labels)",
        ).outline.set_visible(False)  # fmt: skip

    return draw


def _bars(axes: "Axes", found: Mutagenesis, line: range) -> None:
    values = found.importance[line.start : line.stop]
    axes.bar(list(line), values, width=0.8, color=[BLUE if value > 0 else ORANGE for value in values])
    axes.axhline(0, color="#6b7280", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.set_ylabel("importance")
    axes.set_xticks(list(line), list(found.insert[line.start : line.stop]), family="monospace", weight="bold")
    axes.tick_params(axis="x", length=0)
    for label in axes.get_xticklabels():
        label.set_color(LETTER_COLOURS[label.get_text()])


def _cells(axes: "Axes", found: Mutagenesis, line: range, colours: "Colormap", most: float) -> "QuadMesh":
    rows = slice(line.start, line.stop)
    edges = np.arange(line.start, line.stop + 1) - 0.5
    mesh = axes.pcolormesh(
        edges, np.arange(len(BASES) + 1) - 0.5, found.effects[rows].T,
        cmap=colours, vmin=-most, vmax=most, edgecolors="#ffffff", linewidth=0.5,
    )  # fmt: skip
    own = np.argwhere(~found.substituted[rows])
    axes.plot(own[:, 0] + line.start, own[:, 1], ".", color="#6b7280", markersize=3, linestyle="none")
    axes.set_ylim(len(BASES) - 0.5, -0.5)
    axes.set_yticks(range(len(BASES)), list(BASES), family="monospace")
    tens = [place for place in line if (place + 1) % 10 == 0 or place == 0]
    axes.set_xticks(tens, [str(place + 1) for place in tens])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return mesh
