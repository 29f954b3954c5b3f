"""Plots of a saturation mutagenesis: a logo of the importance of the bases, and effects as a map of position x base."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from model.interpretation.explained import (
    ALTERNATIVE,
    REFERENCE,
    ExplainedRow,
    ExplainedSequence,
    align_variant,
)
from model.interpretation.hit_plot import TRACK_INCHES, count_tracks, draw_hits, place_hits
from model.interpretation.logo import draw_logo, mark_columns
from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult
from pipeline.reporting.palette import BLUE, LINE_GREY, ORANGE
from pipeline.reporting.svg import Draw, plot
from pipeline.reporting.text import with_unit

MIN_LINE_BASES, MAX_LINE_BASES = 30, 50
"""Positions per line of the plot; a longer insert is wrapped, and a shorter one does not fill the line."""
EFFECT_COLOURS = LinearSegmentedColormap.from_list("effect", [ORANGE, "#ffffff", BLUE])
LOGO_INCHES, MAP_INCHES, CHANGE_INCHES = 1.0, 0.95, 0.6
"""Heights of the panels of a line."""
EDGE_INCHES, TITLE_INCHES = 0.7, 0.25
TITLE_CHARACTERS = 72
"""Characters per line of a title."""
BAR_GREY = "#8a94a0"


Legend = Callable[[Figure, Sequence[Axes]], None]
"""A function that adds the unit of expression to a figure with its panels."""


@dataclass(frozen=True)
class Panel:
    """A panel of the lines. heights: in inches, per line; 0 for none. draw: called with its axes and its columns."""

    heights: Sequence[float]
    draw: Callable[[Axes, range], None]


@dataclass(frozen=True)
class Drawing:
    """A figure to be drawn. height: in inches; hits_left_out: motif hits for which there is no room."""

    draw: Draw
    height: float
    hits_left_out: int = 0


def draw_row(row: ExplainedRow, label: str, title: str = "") -> Drawing:
    """Draw a sequence as logo and map of effects, or a variant as the logos of both sides. title: printed above."""
    return _draw_variant(row, label, title) if row.is_variant else _draw_sequence(row.main, label, title)


def _draw_sequence(sequence: ExplainedSequence, label: str, title: str) -> Drawing:
    result = sequence.results[label]
    lines = _lines(len(result.insert))
    hits, left_out = _hit_panel(sequence, range(len(result.insert)), lines)
    logo = _panel(LOGO_INCHES, lines, lambda axes, line: _draw_importance(axes, result, line))
    cells = _panel(MAP_INCHES, lines, lambda axes, line: _draw_cells(axes, result, line))
    return _drawing([*hits, logo, cells], lines, title, _bar(result.unit), left_out)


def _draw_variant(row: ExplainedRow, label: str, title: str) -> Drawing:
    """Draw the logos of both sides in common columns and on one scale, and below the change of importance."""
    sides = row.sides[REFERENCE], row.sides[ALTERNATIVE]
    aligned = align_variant(sides[0].insert, sides[1].insert)
    texts = aligned.reference, aligned.alternative
    lines = _lines(len(texts[0]))
    values = [_spread(side.results[label].importance, text) for side, text in zip(sides, texts, strict=True)]
    limits = _limits(np.concatenate(values))
    panels, left_out = list[Panel](), 0
    for name, side, text, heights in zip(row.sides, sides, texts, values, strict=True):
        hits, more = _hit_panel(side, [at for at, letter in enumerate(text) if letter != "-"], lines)
        draw = _logo_of_side(name, text, heights, limits, aligned.changed)
        panels += [*hits, _panel(LOGO_INCHES, lines, draw)]
        left_out += more
    is_base = np.array([one != "-" and other != "-" for one, other in zip(*texts, strict=True)])
    change = np.where(is_base, values[1] - values[0], 0)
    panels.append(
        _panel(CHANGE_INCHES, lines, lambda axes, line: _draw_change(axes, change, texts[0], aligned.changed, line))
    )
    return _drawing(panels, lines, title, _shared_label(sides[0].results[label].unit), left_out)


def _panel(height: float, lines: Sequence[range], draw: Callable[[Axes, range], None]) -> Panel:
    """Make a panel of every line."""
    return Panel([height] * len(lines), draw)


def _drawing(panels: Sequence[Panel], lines: Sequence[range], title: str, legend: Legend, left_out: int) -> Drawing:
    """Put panels and title together. legend: names the unit once, as the labels of the panels have no room for it."""
    title = textwrap.fill(title, TITLE_CHARACTERS)
    height = sum(sum(panel.heights) for panel in panels) + EDGE_INCHES
    height += TITLE_INCHES * len(title.splitlines())
    return Drawing(_lines_plot(panels, lines, title, legend), height, left_out)


def _lines(columns: int) -> list[range]:
    """Divide the columns into lines of nearly equal length."""
    count = -(-columns // MAX_LINE_BASES)
    width = -(-columns // count)
    return [range(start, min(start + width, columns)) for start in range(0, columns, width)]


@plot
def _lines_plot(figure: Figure, panels: Sequence[Panel], lines: Sequence[range], title: str, legend: Legend) -> None:
    parts = [(panel.heights[n], panel.draw, line) for n, line in enumerate(lines) for panel in panels]
    parts = [part for part in parts if part[0]]
    heights = [height for height, _, _ in parts]
    axes = figure.subplots(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    width = len(lines[0]) if len(lines) > 1 else max(len(lines[0]), MIN_LINE_BASES)
    for place, (_, draw, line) in zip(axes, parts, strict=True):
        draw(place, line)
        place.set_xlim(line.start - 0.5, line.start + width - 0.5)
    if title:
        figure.suptitle(title, x=0.01, ha="left", size=11, weight="bold")
    legend(figure, list(axes))


def _bar(unit: str) -> Legend:
    """Return a colour bar of the effects, whose label also has the unit of the importance."""

    def draw(figure: Figure, axes: Sequence[Axes]) -> None:
        mesh = next(part for part in axes[-1].collections if isinstance(part, QuadMesh))
        figure.colorbar(
            mesh, ax=list(axes), location="top", shrink=0.5, aspect=40, pad=0.02,
            label=textwrap.fill(with_unit("effect on predicted expression, and importance", unit), TITLE_CHARACTERS),
        ).outline.set_visible(False)  # fmt: skip

    return draw


def _shared_label(unit: str) -> Legend:
    """Return one label above the panels, for the y axes of all of them."""

    def draw(_figure: Figure, axes: Sequence[Axes]) -> None:
        text = textwrap.fill(with_unit("importance of the base", unit), TITLE_CHARACTERS)
        axes[0].set_title(text, loc="left", size="medium")

    return draw


def _hit_panel(sequence: ExplainedSequence, columns: Sequence[int], lines: Sequence[range]) -> tuple[list[Panel], int]:
    """Return the panel of motif hits, if there are any, and the number of hits that are left out."""
    placed, left_out = place_hits(sequence.hits or (), columns, lines)
    if not placed:
        return [], left_out
    tracks = [count_tracks(placed, line) for line in lines]
    draw = lambda axes, line: draw_hits(axes, placed, line)  # noqa: E731
    return [Panel([TRACK_INCHES * count for count in tracks], draw)], left_out


def _limits(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the limits of an axis that includes 0, with a margin."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_importance(axes: Axes, result: MutagenesisResult, line: range) -> None:
    draw_logo(axes, result.insert, result.importance, line)
    axes.set_ylim(*_limits(result.importance))
    axes.set_ylabel("importance")


def _logo_of_side(
    name: str,
    text: str,
    heights: npt.NDArray[np.float32],
    limits: tuple[float, float],
    changed: Sequence[int],
) -> Callable[[Axes, range], None]:
    def draw(axes: Axes, line: range) -> None:
        draw_logo(axes, text, heights, line, changed)
        axes.set_ylim(*limits)
        axes.set_ylabel(name)

    return draw


def _spread(values: npt.NDArray[np.float32], text: str) -> npt.NDArray[np.float32]:
    """Put the values of the bases at their columns; 0 at gaps."""
    spread = np.zeros(len(text), np.float32)
    spread[[letter != "-" for letter in text]] = values
    return spread


def _draw_change(
    axes: Axes, change: npt.NDArray[np.float32], reference: str, changed: Sequence[int], line: range
) -> None:
    axes.bar(list(line), change[line.start : line.stop], width=0.8, color=BAR_GREY)
    mark_columns(axes, changed, line)
    axes.axhline(0, color=LINE_GREY, linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(*_limits(change))
    axes.set_ylabel("change")
    positions = np.cumsum([letter != "-" for letter in reference])
    bases = [(int(positions[at]), at) for at in line if reference[at] != "-"]
    _number(axes, bases)
    axes.set_xlabel("position in the reference insert (bases)")


def _number(axes: Axes, places: Sequence[tuple[int, int]]) -> None:
    """Write each tenth position, and the first one if the next one leaves room. places: positions and their columns."""
    ticks = [place for place in places[:1] if place[0] % 10 != 9]
    ticks += [place for place in places[len(ticks) :] if place[0] % 10 == 0]
    axes.set_xticks([at for _, at in ticks], [str(place) for place, _ in ticks])


def _draw_cells(axes: Axes, result: MutagenesisResult, line: range) -> None:
    rows = slice(line.start, line.stop)
    largest = float(np.abs(result.effects).max()) or 1.0
    edges = np.arange(line.start, line.stop + 1) - 0.5
    axes.pcolormesh(
        edges, np.arange(len(BASES) + 1) - 0.5, result.effects[rows].T,
        cmap=EFFECT_COLOURS, vmin=-largest, vmax=largest, edgecolors="#ffffff", linewidth=0.5,
    )  # fmt: skip
    reference = np.argwhere(~result.is_substitution[rows])
    axes.plot(reference[:, 0] + line.start, reference[:, 1], ".", color=LINE_GREY, markersize=3, linestyle="none")
    axes.set_ylim(len(BASES) - 0.5, -0.5)
    axes.set_yticks(range(len(BASES)), list(BASES), family="monospace")
    axes.set_ylabel("new base")
    _number(axes, [(place + 1, place) for place in line])
    axes.set_xlabel("position in the insert (bases)")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
