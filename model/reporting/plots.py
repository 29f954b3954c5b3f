"""Pictures of runs: numbers in, what draws them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.dataset.query import Columns
from pipeline.reporting.svg import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE_BLUE,
    PURPLE,
    Draw,
    label_axes,
    legend,
    log_count_axis,
    whole_number_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK = "#374151"
HUES = (BLUE, ORANGE, GREEN, PURPLE, "#000000", "#56b4e9", "#e69f00")
Dashes = Literal["-", "--", "-.", ":"]
DASHES: tuple[Dashes, ...] = ("-", "--", "-.", ":")
SHADES = ("#deebf7", "#b3d3e8", "#7fb8da", "#4a98c9", "#2070b4", "#084a91", "#062a56")
"""Of cells that hold few to many promoters."""
FEW = 10
"""Promoters below which a mean is shown without an interval, which would be as wide as the picture."""


@dataclass(frozen=True)
class Curve:
    """A metric over training. epochs and values are of one length; dots: a value was measured there only."""

    label: str
    epochs: Sequence[float]
    values: Sequence[float]
    colour: str
    dashes: Dashes = "-"
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """A score with its interval, if it has one."""

    label: str
    value: float
    interval: tuple[float, float] | None = None
    colour: str = BLUE


def curves(lines: Sequence[Curve], y: str, logarithmic: bool = False, named: bool = True) -> Draw:
    """A metric of a stage by epochs, one line each. named: whether several lines have their legend here."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for line in lines:
            axes.plot(
                line.epochs, line.values, color=line.colour, linestyle=line.dashes, linewidth=1.6, label=line.label,
                marker="o" if line.dots or len(line.epochs) == 1 else "", markersize=3,
            )  # fmt: skip
        if logarithmic:
            _powers_of_ten(axes)
        axes.set_xlim(left=0)
        label_axes(axes, "epochs", y)
        if named and len(lines) > 1:
            legend(figure)

    return draw


def key(lines: Sequence[Curve], columns: int) -> Draw:
    """The names of lines, for pictures that share them."""

    def draw(figure: "Figure") -> None:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=line.colour, linestyle=line.dashes, label=line.label) for line in lines]
        figure.legend(handles=handles, loc="upper left", ncols=columns, borderaxespad=0)

    return draw


def _powers_of_ten(axes: "Axes") -> None:
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def density(cells: Columns) -> Draw:
    """Promoters by measured and predicted expression: cells coloured by how many they hold, and the diagonal."""

    def draw(figure: "Figure") -> None:
        from matplotlib.collections import PolyCollection
        from matplotlib.patches import Patch

        axes = figure.subplots()
        half = cells["step"][0] / 2
        limits = class_limits(max(cells["promoters"]))
        shades = [SHADES[round(n * (len(SHADES) - 1) / max(len(limits) - 1, 1))] for n in range(len(limits))]
        squares, colours = [], []
        for x, y, n in zip(cells["measured"], cells["predicted"], cells["promoters"], strict=True):
            squares.append([(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)])
            colours.append(shades[_class(n, limits)])
        axes.add_collection(PolyCollection(squares, facecolors=colours, linewidths=0))
        ends = [*cells["measured"], *cells["predicted"]]
        low, high = min(ends) - half, max(ends) + half
        axes.plot([low, high], [low, high], color=ORANGE, linewidth=1.6, linestyle="--")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        label_axes(axes, "measured expression", "predicted expression")
        boxes = [Patch(color=shade, label=name) for shade, name in zip(shades, _class_names(limits), strict=True)]
        figure.legend(handles=boxes, loc="outside right upper", title="promoters\nin a cell", handlelength=1.2)

    return draw


def class_limits(most: int) -> list[int]:
    """The least promoters of each class of cells: 1, 2, 5, 10, ..., or a coarser row where that makes too many."""
    for row in ((1, 2, 5), (1, 3), (1,)):
        limits = [digit * 10**power for power in range(len(str(most))) for digit in row]
        kept = [limit for limit in limits if limit <= most]
        if len(kept) <= len(SHADES):
            return kept
    return kept[: len(SHADES)]


def _class(n: int, limits: Sequence[int]) -> int:
    return max(place for place, limit in enumerate(limits) if n >= limit)


def _class_names(limits: Sequence[int]) -> list[str]:
    ends = [*(limit - 1 for limit in limits[1:]), None]
    return [
        f"{low:,} or more" if high is None else f"{low:,}" if low == high else f"{low:,} to {high:,}"
        for low, high in zip(limits, ends, strict=True)
    ]


def residuals(found: Columns, places: Sequence[float], x: str, width: float) -> Draw:
    """Mean residual with its 95 % interval, and the middle half, by some property; below, the promoters of each group.

    places: of the groups on the axis; width: of a bar, in units of the axis.
    """

    def draw(figure: "Figure") -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.axhline(0, color=ORANGE, linewidth=1.2, linestyle="--")
        upper.vlines(
            places, found["lower_quartile"], found["upper_quartile"], color=PALE_BLUE, linewidth=7,
            label="middle half",
        )  # fmt: skip
        means = list(zip(places, found["mean_residual"], strict=True))
        reaches = half_intervals(found)
        many = [place for place, n in enumerate(found["promoters"]) if n >= FEW]
        few = [place for place, n in enumerate(found["promoters"]) if n < FEW]
        if many:
            upper.errorbar(
                *zip(*(means[place] for place in many), strict=True), yerr=[reaches[place] for place in many],
                color=BLUE, linestyle="", marker="o", markersize=4, elinewidth=1.5, label="mean, 95 % interval",
            )  # fmt: skip
        if few:
            upper.plot(
                *zip(*(means[place] for place in few), strict=True), color=BLUE, linestyle="", marker="o", markersize=4,
                markerfacecolor="#ffffff", label=f"mean of < {FEW}",
            )  # fmt: skip
        lower.bar(places, found["promoters"], width=width, color=GREY)
        log_count_axis(lower, max(found["promoters"]))
        if width >= 0.5:  # steps of 1 or more
            whole_number_axis(lower)
        label_axes(upper, "", "measured - predicted")
        label_axes(lower, x, "promoters\n(log. scale)")
        legend(figure)

    return draw


def half_intervals(groups: Columns) -> list[float]:
    """Half of the 95 % interval of each group's mean, by Student's t; 0 for a single promoter.

    groups: with columns promoters and standard_error.
    """
    from scipy.stats import t

    return [
        float(t.ppf(0.975, n - 1)) * error if error else 0.0
        for n, error in zip(groups["promoters"], groups["standard_error"], strict=True)
    ]


def calibration(groups: Columns) -> Draw:
    """Mean label of groups of equal size against their mean prediction, and the diagonal."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        x, y = groups["mean_prediction"], groups["mean_expression"]
        low, high = min(*x, *y), max(*x, *y)
        axes.plot([low, high], [low, high], color=ORANGE, linewidth=1.6, linestyle="--", label="calibrated")
        axes.errorbar(
            x, y, yerr=half_intervals(groups), color=BLUE, linestyle="", marker="o", markersize=4, elinewidth=1.5,
            label="twenty equal groups, 95 % interval",
        )  # fmt: skip
        label_axes(axes, "mean prediction", "mean measured expression")
        legend(figure)

    return draw


def bars(rows: Sequence[Bar], x: str) -> Draw:
    """A bar a score, the first on top, with its interval and its value as text."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        places = range(len(rows))
        axes.barh(places, [row.value for row in rows], height=0.65, color=[row.colour for row in rows])
        for place, row in zip(places, rows, strict=True):
            _interval_and_value(axes, place, row)
        ends = [end for row in rows for end in (row.value, *(row.interval or ()))]
        axes.set_xlim(min(0, *ends) * 1.25, max(max(ends) * 1.3, 0.05))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(list(places), [row.label for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        label_axes(axes, x, "")

    return draw


def _interval_and_value(axes: "Axes", place: int, row: Bar) -> None:
    end = max(row.value, 0.0)
    if row.interval:
        low, high = row.interval
        axes.plot([low, high], [place, place], color=DARK, linewidth=1.6, solid_capstyle="butt")
        end = max(end, high)
    axes.annotate(f"{row.value:.3f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
