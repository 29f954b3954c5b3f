"""Set up the axes and legends of figures."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from pipeline.reporting.palette import GREY

LOG_COUNT = "number of promoters\n(log scale)"


def legend(figure: Figure) -> None:
    """Put the legend above the axes in one row, where it covers no data."""
    figure.legend(loc="outside upper left", ncols=5)


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


def share_axis(axes: Axes) -> None:
    """Scale y from 0, and label shares in per cent."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def panels_with_counts(
    figure: Figure, places: Sequence[float], counts: Sequence[int], width: float, x: str
) -> tuple[Axes, Axes]:
    """Make two panels on one x axis: an empty upper one, and bars of the number of promoters at each place below."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    lower.bar(places, counts, width=width, color=GREY)
    log_count_axis(lower, max(counts, default=1))
    lower.set(xlabel=x, ylabel=LOG_COUNT)
    return upper, lower


def whole_number_axis(axes: Axes) -> None:
    """Put the ticks of the x axis at whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))
