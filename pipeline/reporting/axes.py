"""Set up the axes and legends of figures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from pipeline.reporting.palette import GREY

CHARACTER, HANDLE = 6.2, 42
"""Estimated width in points of a character of a legend, and of the line or box beside each of its texts."""

NEIGHBOURS = 5
"""Whole numbers shown on each side of a few values."""


def legend(figure: Figure) -> None:
    """Put the legend above the axes, where it covers no data, in as few rows as the width of the figure allows."""
    lengths = [len(text) for axes in figure.axes for text in axes.get_legend_handles_labels()[1]]
    width = 72 * figure.get_figwidth()
    figure.legend(
        loc="outside upper left", ncols=next(n for n in range(len(lengths), 0, -1) if _fits(lengths, n, width))
    )


def _fits(lengths: Sequence[int], columns: int, width: float) -> bool:
    """Tell whether a legend fits into `width` points. lengths: characters per text, filled column by column."""
    longest = [max(part) for part in np.array_split(lengths, columns)]
    return columns == 1 or sum(CHARACTER * int(characters) + HANDLE for characters in longest) <= width


def count_axis(axes: Axes, highest: float) -> None:
    """Scale y from 0 for whole numbers of promoters, with room above the highest bar."""
    axes.set_ylim(0, 1.06 * highest)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def log_count_axis(axes: Axes, highest: float) -> None:
    """Scale y logarithmically from below 1, so that a single promoter can be seen."""
    axes.set_yscale("log")
    axes.set_ylim(0.7, 2 * highest)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def log_count_label(name: str) -> str:
    """Label the y axis of a number of promoters, on a logarithmic scale. name: assay.name."""
    return f"{name}s\n(log scale)"


def share_axis(axes: Axes) -> None:
    """Scale y from 0, and show shares in per cent; the label of the axis names the unit."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}"))


def panels_with_counts(
    figure: Figure, places: Sequence[float], counts: Sequence[int], width: float, x: str, name: str
) -> tuple[Axes, Axes]:
    """Make two panels on one x axis: an empty upper one, and bars of the number of promoters at each place below.

    name: assay.name, for the label of the lower y axis.
    """
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    lower.bar(places, counts, width=width, color=GREY)
    log_count_axis(lower, max(counts, default=1))
    lower.set(xlabel=x, ylabel=log_count_label(name))
    return upper, lower


def whole_number_axis(axes: Axes) -> None:
    """Put the ticks of the x axis at whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))


def show_neighbours(axes: Axes, values: Sequence[float]) -> None:
    """Widen the x axis of a few whole numbers: a single bar would fill the figure, on an axis of fractions."""
    if values and max(values) - min(values) < NEIGHBOURS:
        axes.set_xlim(min(values) - NEIGHBOURS, max(values) + NEIGHBOURS)
