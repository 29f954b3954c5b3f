"""Plots of runs: curves of logged metrics, bars of scores, and predictions against measurements."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from model.runs.read import RunFiles
from pipeline.config.schema import SEQUENCE_NAME
from pipeline.dataset.query import Columns
from pipeline.reporting.axes import legend, panels_with_counts, show_neighbours, whole_number_axis
from pipeline.reporting.palette import BLACK, BLUE, GREEN, ORANGE, PALE_BLUE, PURPLE
from pipeline.reporting.svg import HALF_WIDTH, plot, render_svg
from pipeline.reporting.text import with_unit

DARK_GREY = "#374151"
HUES = (BLUE, ORANGE, GREEN, PURPLE, BLACK, "#56b4e9", "#e69f00")
Dashes = Literal["-", "--", "-.", ":"]
DASHES: tuple[Dashes, ...] = ("-", "--", "-.", ":")
SHADES = ("#a6cde4", "#84b9da", "#5fa4cd", "#3d8cbf", "#1f6fb0", "#084a91", "#062a56")
"""Colours of cells, from few to many promoters."""
DIAGONAL: Any = {"color": ORANGE, "linewidth": 1.6, "linestyle": "--"}
DOTS: Any = {"color": BLUE, "linestyle": "", "marker": "o", "markersize": 4}
MEANS: Any = {**DOTS, "elinewidth": 1.5, "label": "mean, 95 % confidence interval"}
FEW = 10
"""A mean of fewer promoters is drawn without its interval, which could be as wide as the figure."""
MAX_NAME_LENGTH = 30
"""Most characters of a run's name in a figure."""
POINTS = 400
"""Most points of a curve; a longer curve is drawn as means of successive values."""
MEASURED, PREDICTED = "measured expression", "predicted expression"


@dataclass(frozen=True)
class Curve:
    """Curve of a metric over training: epochs and values, (points,) each. dots: whether each value is marked."""

    label: str
    epochs: Sequence[float]
    values: Sequence[float]
    colour: str
    dashes: Dashes = "-"
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """Bar of a score. interval: 95 % interval (low, high), or None."""

    label: str
    value: float
    interval: Sequence[float] | None = None
    colour: str = BLUE


def short_name(name: str) -> str:
    """Shorten a run's name for a figure to its end."""
    return name if len(name) <= MAX_NAME_LENGTH else f"...{name[3 - MAX_NAME_LENGTH :]}"


def read_curve(run: RunFiles, stage: str, metric: str, label: str, colour: str, dashes: Dashes = "-") -> Curve | None:
    """Read a metric of a stage from a run's log, averaged to at most POINTS; None if it was never logged."""
    lines = [line for line in run.metrics if line["stage"] == stage and metric in line]
    if not lines:
        return None
    size = -(-len(lines) // POINTS)
    parts = [lines[start : start + size] for start in range(0, len(lines), size)]
    epochs, values = ([_mean(part, name) for part in parts] for name in ("epoch", metric))
    return Curve(label, epochs, values, colour, dashes, dots=metric.startswith("valid_") or len(parts) == 1)


def _mean(lines: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(line[name] for line in lines)) / len(lines)


def without_repeats(lines: Iterable[Curve | None]) -> list[Curve]:
    """Drop missing curves, and curves with the same values as an earlier one."""
    first: dict[tuple[float, ...], Curve] = {}
    for line in lines:
        if line is not None:
            first.setdefault((*line.epochs, *line.values), line)
    return list(first.values())


def curve_figure(name: str, title: str, lines: Iterable[Curve | None], y: str, **options: bool) -> list[str]:
    """Draw curves as one <svg> element; an empty list if the metric was never logged. options: of `curves`."""
    available = [line for line in lines if line is not None]
    return [render_svg(name, title, curves(available, y, **options), 2.5, HALF_WIDTH)] if available else []


@plot
def curves(figure: Figure, lines: Sequence[Curve], y: str, logarithmic: bool = False, named: bool = True) -> None:
    """Plot a metric against epochs, one line per curve. y: axis label; named: whether several lines get a legend."""
    axes = figure.subplots()
    for line in lines:
        axes.plot(
            line.epochs, line.values, color=line.colour, linestyle=line.dashes, linewidth=1.6, label=line.label,
            marker="o" if line.dots else "", markersize=3,
        )  # fmt: skip
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left=0)
    if max(max(line.epochs) for line in lines) >= 2:
        whole_number_axis(axes)
    axes.set(xlabel="training (epochs)", ylabel=y)
    if named and len(lines) > 1:
        legend(figure)


@plot
def curve_legend(figure: Figure, lines: Sequence[Curve], columns: int) -> None:
    """Draw a legend that several figures share."""
    handles = [Line2D([], [], color=line.colour, linestyle=line.dashes, label=line.label) for line in lines]
    figure.legend(handles=handles, loc="upper left", ncols=columns, borderaxespad=0)


@plot
def bars(figure: Figure, rows: Sequence[Bar], x: str) -> None:
    """Plot one bar per score, the first on top, with its interval and its value as text. x: axis label."""
    axes = figure.subplots()
    axes.barh(range(len(rows)), [row.value for row in rows], height=0.65, color=[row.colour for row in rows])
    ends = [[row.value, *(row.interval or ())] for row in rows]
    for place, row in enumerate(rows):
        if row.interval:
            for colour, width in (("#ffffff", 4.5), (DARK_GREY, 2)):  # a white edge, to be seen on any bar
                axes.plot(row.interval, [place, place], color=colour, linewidth=width, solid_capstyle="butt")
        end = max(0.0, *ends[place])
        axes.annotate(f"{row.value:.3f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    low, high = min(map(min, ends)), max(map(max, ends))
    axes.set(xlim=(min(0, low) * 1.25, max(high * 1.3, 0.05)), ylim=(len(rows) - 0.5, -0.5), xlabel=x)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


@plot
def density(
    figure: Figure,
    cells: Columns,
    name: str = SEQUENCE_NAME,
    label: str = "",
    unit: str = "",
    scores: tuple[float, float] | None = None,
) -> None:
    """Plot predicted against measured expression: cells coloured by number of promoters, and the diagonal.

    name: assay.name; label: name of one of several labels, as the title; unit: assay.unit; scores: Pearson's r and
    Spearman's rho of the promoters.
    """
    axes = figure.subplots()
    half = cells["step"][0] / 2
    limits = class_limits(max(cells["promoters"]))
    shades = [SHADES[round(n * (len(SHADES) - 1) / max(len(limits) - 1, 1))] for n in range(len(limits))]
    squares = [
        [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
        for x, y in zip(cells["measured"], cells["predicted"], strict=True)
    ]
    colours = [shades[bisect_right(limits, n) - 1] for n in cells["promoters"]]
    axes.add_collection(PolyCollection(squares, facecolors=colours, linewidths=0))
    ends = [*cells["measured"], *cells["predicted"]]
    low, high = min(ends) - half, max(ends) + half
    axes.plot([low, high], [low, high], **DIAGONAL)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel=with_unit(MEASURED, unit), ylabel=with_unit(PREDICTED, unit))
    if label:
        axes.set_title(label)
    if scores is not None:
        write_scores(axes, *scores, rows=sum(cells["promoters"]))
    boxes = [Patch(color=shade, label=text) for shade, text in zip(shades, _class_names(limits), strict=True)]
    figure.legend(handles=boxes, loc="outside right upper", title=f"{name}s\nper cell", handlelength=1.2)


def write_scores(axes: Axes, pearson: float, spearman: float, rows: int) -> None:
    """Write r, rho and the number of rows into the upper left corner, where predictions are rarely."""
    text = f"r = {pearson:.3f}\nρ = {spearman:.3f}\nn = {rows:,}"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=9, color=DARK_GREY)


def class_limits(most: int) -> list[int]:
    """Choose the smallest count of each colour: 1, 2, 5, 10, ..., or coarser steps if these need too many colours."""
    for row in ((1, 2, 5), (1, 3), (1,)):
        limits = [digit * 10**power for power in range(len(str(most))) for digit in row]
        kept = [limit for limit in limits if limit <= most]
        if len(kept) <= len(SHADES):
            return kept
    return kept[: len(SHADES)]


def _class_names(limits: Sequence[int]) -> list[str]:
    ranges = [(low, above - 1) for low, above in pairwise(limits)]
    names = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in ranges]
    return [*names, f"{limits[-1]:,} or more"]


@plot
def calibration(figure: Figure, groups: Columns, unit: str = "") -> None:
    """Plot mean measured expression of twenty equal groups against their mean prediction, and the diagonal.

    unit: assay.unit.
    """
    axes = figure.subplots()
    x, y = groups["mean_prediction"], groups["mean_expression"]
    low, high = min(*x, *y), max(*x, *y)
    axes.plot([low, high], [low, high], **DIAGONAL, label="prediction = measurement")
    axes.errorbar(x, y, yerr=half_intervals(groups), **MEANS)
    axes.set(
        xlabel=with_unit(f"mean {PREDICTED}", unit), ylabel=with_unit(f"mean {MEASURED}", unit).replace(" (", "\n(", 1)
    )
    legend(figure)


@plot
def residuals(
    figure: Figure,
    groups: Columns,
    places: Sequence[float],
    x: str,
    width: float,
    name: str = SEQUENCE_NAME,
    unit: str = "",
) -> None:
    """Plot mean residual and middle half by a property of promoters; below, the number of promoters of each group.

    places: x positions of the groups; x: label of the x axis; width: width of a bar in units of the x axis;
    name: assay.name; unit: assay.unit.
    """
    upper, lower = panels_with_counts(figure, places, groups["promoters"], width, x, name)
    upper.axhline(0, color=ORANGE, linewidth=1.2, linestyle="--")
    low, high = groups["lower_quartile"], groups["upper_quartile"]
    upper.vlines(places, low, high, color=PALE_BLUE, linewidth=7, label="middle half of the residuals")
    few = np.array(groups["promoters"]) < FEW
    at, means = np.array(places), np.array(groups["mean_residual"])
    if not few.all():
        upper.errorbar(at[~few], means[~few], yerr=half_intervals(groups)[~few], **MEANS)
    if few.any():
        upper.plot(at[few], means[few], **DOTS, markerfacecolor="#ffffff", label=f"mean of fewer than {FEW} {name}s")
    if width >= 0.5:  # steps of 1 or more
        show_neighbours(lower, places)
        whole_number_axis(lower)
    upper.set_ylabel(with_unit("residual", unit).replace(" (", "\n(", 1))
    legend(figure)


def half_intervals(groups: Columns) -> npt.NDArray[np.float64]:
    """Compute half the width of the 95 % interval of each group's mean by Student's t: float64 (groups,).

    groups: has the columns promoters and standard_error. 0 for a single promoter.
    """
    from scipy.stats import t  # 0.5 s to import

    errors = np.array(groups["standard_error"], float)  # NaN for a single promoter
    return np.nan_to_num(t.ppf(0.975, np.array(groups["promoters"]) - 1) * errors)
