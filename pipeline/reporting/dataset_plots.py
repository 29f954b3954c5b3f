"""Pictures of a dataset: columns of numbers in, what draws them out."""

from typing import TYPE_CHECKING

from pipeline.dataset.query import Columns
from pipeline.reporting.svg import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE_BLUE,
    PALE_GREY,
    PURPLE,
    Draw,
    count_axis,
    label_axes,
    legend,
    log_count_axis,
    share_axis,
    whole_number_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPRESSION = "expression (scale of the labels)"
MOST_KMERS = 12
"""K-mers shown of either end."""


def label_histogram(columns: Columns, cut: float) -> Draw:
    """Bars of promoters by whole number of the label, those pretrained on set off, the cut as a line."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        left, top = columns["expression"], columns["pretrained_on"]
        rest = [n - above for n, above in zip(columns["promoters"], top, strict=True)]
        axes.bar(left, rest, width=0.92, align="edge", color=GREY, label="below the cut")
        axes.bar(left, top, width=0.92, align="edge", bottom=rest, color=BLUE, label="at or above it: pretrained on")
        axes.axvline(cut, color=ORANGE, linewidth=2, linestyle="--", label=f"cut at {cut:g}")
        count_axis(axes, max(columns["promoters"]))
        whole_number_axis(axes)
        label_axes(axes, EXPRESSION, "promoters")
        legend(figure)

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
        share_axis(axes)
        whole_number_axis(axes)
        label_axes(axes, EXPRESSION, "share of the split")
        legend(figure)

    return draw


def insert_lengths(columns: Columns) -> Draw:
    """Bars of promoters by length of the insert, on a logarithmic scale."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.bar(columns["bases"], columns["promoters"], width=0.8, color=BLUE)
        log_count_axis(axes, max(columns["promoters"]))
        whole_number_axis(axes)
        label_axes(axes, "length of the insert (bases)", "promoters\n(logarithmic scale)")

    return draw


def gc_against_expression(columns: Columns) -> Draw:
    """Mean and middle half of expression by GC content; below, how many promoters each step holds."""

    def draw(figure: "Figure") -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        # A step is 5 % wide; a percentage is put at its middle.
        middle = [100 * gc + 2.5 for gc in columns["gc"]]
        upper.fill_between(
            middle,
            columns["lower_quartile"],
            columns["upper_quartile"],
            color=PALE_BLUE,
            linewidth=0,
            label="middle half of the promoters",
        )
        upper.plot(middle, columns["mean_expression"], color=BLUE, linewidth=2, marker="o", markersize=4, label="mean")
        lower.bar(middle, columns["promoters"], width=4.4, color=GREY)
        log_count_axis(lower, max(columns["promoters"], default=1))
        label_axes(upper, "", EXPRESSION)
        label_axes(lower, "GC content of the insert (%)", "promoters\n(log. scale)")
        legend(figure)

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
        share_axis(axes)
        whole_number_axis(axes)
        label_axes(axes, "position in the insert (bases from its left end)", "share of the promoters")
        legend(figure)

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
            axes.annotate(
                kmer, (0, place), (side, 0), textcoords="offset points", ha=align, va="center", family="monospace"
            )
        reach = 1.1 * max((abs(ratio) for ratio in ratios), default=1) or 1
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.axvline(0, color="#6b7280", linewidth=1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        label_axes(axes, "log2 of (share among the top / share among the rest)", "")

    return draw
