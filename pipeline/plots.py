"""Pictures of a dataset: columns of numbers in, inline SVG out.

A picture is the same text for the same numbers: matplotlib's own settings whatever the user's, no date, fixed ids.
Text stays text, so that a page can be searched. The colours are told apart without colour vision, too.
"""

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = dict[str, list[Any]]
"""What a query returned: values by column."""
Draw = Callable[["Figure"], None]

WIDTH = 7.2
"""Inches."""
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
PALE_BLUE, GREY, PALE_GREY = "#cce3f0", "#b4bac1", "#d5d9dd"
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.edgecolor": "#6b7280",
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}
EXPRESSION = "expression (scale of the labels)"
MOST_KMERS = 12
"""K-mers shown of either end."""


def svg(name: str, title: str, height: float, draw: Draw) -> str:
    """What `draw` puts on an empty figure of `height` inches, as an <svg> element for a page.

    name: unique on the page; makes the element's inner ids. title: what a screen reader says.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return _inline(file.getvalue(), title)


def _inline(document: str, title: str) -> str:
    """An SVG file as an element of an HTML page."""
    element = document[document.index("<svg") :].strip()
    element = re.sub(r"\s*<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    # HTML knows the namespaces, and the names of groups would stand on the page once a picture.
    element = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element).replace("xlink:href", "href")
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    text = html.escape(title)
    return re.sub(r"<svg([^>]*)>", rf'<svg\1 role="img" aria-label="{text}"><title>{text}</title>', element, count=1)


def standalone(element: str) -> str:
    """A page's <svg> element as the text of an .svg file."""
    return element.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + "\n"


def label_histogram(columns: Columns, cut: float) -> Draw:
    """Bars of promoters by whole number of the label, those pretrained on set off, the cut as a line."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        left, top = columns["expression"], columns["pretrained_on"]
        rest = [n - above for n, above in zip(columns["promoters"], top, strict=True)]
        axes.bar(left, rest, width=0.92, align="edge", color=GREY, label="below the cut")
        axes.bar(left, top, width=0.92, align="edge", bottom=rest, color=BLUE, label="at or above it: pretrained on")
        axes.axvline(cut, color=ORANGE, linewidth=2, linestyle="--", label=f"cut at {cut:g}")
        _counts(axes, max(columns["promoters"]))
        _whole_numbers(axes)
        _labels(axes, EXPRESSION, "promoters")
        _legend(figure)

    return draw


def labels_by_split(columns: Columns) -> Draw:
    """Share of each split's promoters by whole number of the label, laid over each other."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        first, last = int(columns["expression"][0]), int(columns["expression"][-1])
        rows = {int(value): row for row, value in enumerate(columns["expression"])}
        edges = list(range(first, last + 2))

        def shares(split: str) -> list[float]:
            # A value that no promoter has is no row of the query.
            return [columns[split][rows[value]] if value in rows else 0.0 for value in edges[:-1]]

        axes.stairs(shares("train"), edges, fill=True, color=PALE_GREY, label="train")
        axes.stairs(shares("valid"), edges, color=BLUE, linewidth=2, label="valid")
        axes.stairs(shares("test"), edges, color=ORANGE, linewidth=2, linestyle="--", label="test")
        _shares(axes)
        _whole_numbers(axes)
        _labels(axes, EXPRESSION, "share of the split")
        _legend(figure)

    return draw


def insert_lengths(columns: Columns) -> Draw:
    """Bars of promoters by length of the insert, on a logarithmic scale."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.bar(columns["bases"], columns["promoters"], width=0.8, color=BLUE)
        _logarithmic_counts(axes, max(columns["promoters"]))
        _whole_numbers(axes)
        _labels(axes, "length of the insert (bases)", "promoters\n(logarithmic scale)")

    return draw


def gc_against_expression(columns: Columns) -> Draw:
    """Mean and middle half of expression by GC content; below, how many promoters each step holds."""

    def draw(figure: "Figure") -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        # A step is 5 % wide; a percentage is put at its middle.
        middle = [100 * gc + 2.5 for gc in columns["gc"]]
        upper.fill_between(
            middle, columns["lower_quartile"], columns["upper_quartile"], color=PALE_BLUE, linewidth=0,
            label="middle half of the promoters",
        )  # fmt: skip
        upper.plot(middle, columns["mean_expression"], color=BLUE, linewidth=2, marker="o", markersize=4, label="mean")
        lower.bar(middle, columns["promoters"], width=4.4, color=GREY)
        _logarithmic_counts(lower, max(columns["promoters"], default=1))
        _labels(upper, "", EXPRESSION)
        _labels(lower, "GC content of the insert (%)", "promoters\n(log. scale)")
        _legend(figure)

    return draw


def bases_by_position(columns: Columns) -> Draw:
    """Share of each base at each position of the insert."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        lines = (
            ("a", GREEN, "-"),
            ("c", BLUE, "--"),
            ("g", "#000000", "-."),
            ("t", ORANGE, "-"),
            ("n", PURPLE, ":"),
        )
        for base, colour, dashes in lines:
            axes.plot(
                columns["position"], columns[base], color=colour, linestyle=dashes, linewidth=2, label=base.upper()
            )
        _shares(axes)
        _whole_numbers(axes)
        _labels(axes, "position in the insert (bases from its left end)", "share of the promoters")
        _legend(figure)

    return draw


def kmer_enrichment(columns: Columns) -> Draw:
    """Bars of the k-mers most enriched and most depleted among the promoters pretrained on."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        pairs = list(zip(columns["kmer"], columns["log2_ratio"], strict=True))
        if len(pairs) > 2 * MOST_KMERS:
            pairs = pairs[:MOST_KMERS] + pairs[-MOST_KMERS:]
        places = list(range(len(pairs)))
        ratios = [ratio for _, ratio in pairs]
        axes.barh(places, ratios, height=0.75, color=[BLUE if ratio > 0 else ORANGE for ratio in ratios])
        for place, (kmer, ratio) in zip(places, pairs, strict=True):
            # Beside its bar, on the free side of zero.
            side, align = (-4, "right") if ratio > 0 else (4, "left")
            axes.annotate(kmer, (0, place), (side, 0), textcoords="offset points", ha=align, va="center",
                family="monospace")  # fmt: skip
        reach = 1.1 * max((abs(ratio) for ratio in ratios), default=1) or 1
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.axvline(0, color="#6b7280", linewidth=1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        _labels(axes, "log2 of (share among the top / share among the rest)", "")

    return draw


def _labels(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _legend(figure: "Figure") -> None:
    """Above the axes, in one row: it never covers the data."""
    figure.legend(loc="outside upper left", ncols=5)


def _counts(axes: "Axes", highest: float) -> None:
    """Whole numbers of promoters, with room above the highest bar."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_ylim(0, 1.06 * highest)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _logarithmic_counts(axes: "Axes", highest: float) -> None:
    """Promoters on a logarithmic scale that starts below 1, so that a single one is seen."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.set_ylim(0.7, 2 * highest)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _shares(axes: "Axes") -> None:
    """Per cent from 0 on."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def _whole_numbers(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))
