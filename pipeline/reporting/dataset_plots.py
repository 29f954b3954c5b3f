"""Plot the results of queries of a dataset: each function takes the columns of one query.

name: assay.name, unit: assay.unit, for the labels of axes.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.config.schema import SEQUENCE_NAME
from pipeline.dataset.query import Columns
from pipeline.reporting.axes import (
    count_axis,
    legend,
    log_count_axis,
    log_count_label,
    panels_with_counts,
    share_axis,
    show_neighbours,
    whole_number_axis,
)
from pipeline.reporting.palette import BLACK, BLUE, GREEN, GREY, LINE_GREY, ORANGE, PALE_BLUE, PALE_GREY, PURPLE
from pipeline.reporting.svg import plot
from pipeline.reporting.text import with_unit

MOST_KMERS = 12
"""Number of enriched k-mers, and of depleted ones, in the figure."""


@plot
def label_histogram(
    figure: Figure, columns: Columns, cut: float | None, name: str = SEQUENCE_NAME, unit: str = ""
) -> None:
    """Plot the number of promoters by label. Colours: used for pretraining, held out of it, below its threshold.

    cut: the pretraining threshold, drawn as a dashed line; None for bars of one colour, without pretraining.
    """
    axes = figure.subplots()
    left = columns["expression"]
    if cut is None:
        axes.bar(left, columns["promoters"], width=0.92, align="edge", color=BLUE)
    else:
        _stack_by_use(axes, columns)
        axes.axvline(cut, color=ORANGE, linewidth=2, linestyle="--", label=f"threshold {cut:g}")
    count_axis(axes, max(columns["promoters"]))
    whole_number_axis(axes)
    axes.set(xlabel=with_unit("measured expression", unit), ylabel=f"number of {name}s")
    if cut is not None:
        legend(figure)


def _stack_by_use(axes: Axes, columns: Columns) -> None:
    """Stack the bars of a histogram of labels by use in pretraining; a use without rows has no colour."""
    total, used, held_out = (np.array(columns[name]) for name in ("promoters", "pretrained_on", "held_out_above"))
    below = np.zeros(len(total), int)
    for rows, colour, text in (
        (total - used - held_out, GREY, "below the threshold"),
        (held_out, PURPLE, "above it, held out of pretraining"),
        (used, BLUE, "used for pretraining"),
    ):
        if rows.any():
            axes.bar(columns["expression"], rows, width=0.92, align="edge", bottom=below, color=colour, label=text)
            below = below + rows


@plot
def labels_by_split(figure: Figure, columns: Columns, name: str = SEQUENCE_NAME, unit: str = "") -> None:
    """Plot the share of the promoters of each split by label."""
    axes = figure.subplots()
    first, last = int(columns["expression"][0]), int(columns["expression"][-1])
    edges = list(range(first, last + 2))
    rows = {int(value): row for row, value in enumerate(columns["expression"])}
    shares = {  # the query has no row for a value that no promoter has
        split: [columns[split][rows[value]] if value in rows else 0.0 for value in edges[:-1]]
        for split in ("train", "valid", "test")
    }
    axes.stairs(shares["train"], edges, fill=True, color=PALE_GREY, label="train")
    axes.stairs(shares["valid"], edges, color=BLUE, linewidth=2, label="valid")
    axes.stairs(shares["test"], edges, color=ORANGE, linewidth=2, linestyle="--", label="test")
    share_axis(axes)
    whole_number_axis(axes)
    axes.set(xlabel=with_unit("measured expression", unit), ylabel=f"{name}s of the split (%)")
    legend(figure)


@plot
def insert_lengths(figure: Figure, columns: Columns, name: str = SEQUENCE_NAME) -> None:
    """Plot the number of promoters by length of the insert, on a logarithmic scale."""
    axes = figure.subplots()
    axes.bar(columns["bases"], columns["promoters"], width=0.8, color=BLUE)
    log_count_axis(axes, max(columns["promoters"]))
    show_neighbours(axes, columns["bases"])
    whole_number_axis(axes)
    axes.set(xlabel="insert length (bases)", ylabel=log_count_label(name))


@plot
def gc_against_expression(figure: Figure, columns: Columns, name: str = SEQUENCE_NAME, unit: str = "") -> None:
    """Plot mean and quartiles of expression by GC content; below, the number of promoters of each step."""
    middle = [100 * gc + 2.5 for gc in columns["gc"]]  # of steps that are 5 % wide
    upper, _ = panels_with_counts(figure, middle, columns["promoters"], 4.4, "GC content of the insert (%)", name)
    low, high = columns["lower_quartile"], columns["upper_quartile"]
    upper.fill_between(middle, low, high, color=PALE_BLUE, linewidth=0, label="middle half of the group")
    upper.plot(
        middle, columns["mean_expression"], color=BLUE, linewidth=2, marker="o", markersize=4, label="mean of the group"
    )
    upper.set_ylabel(with_unit("measured expression", unit).replace(" (", "\n(", 1))
    legend(figure)


@plot
def bases_by_position(figure: Figure, columns: Columns) -> None:
    """Plot the share of each base at each position of the insert."""
    axes = figure.subplots()
    for base, colour, dashes in zip(
        "acgtn", (GREEN, BLUE, BLACK, ORANGE, PURPLE), ("-", "--", "-.", "-", ":"), strict=True
    ):
        axes.plot(columns["position"], columns[base], color=colour, linestyle=dashes, linewidth=2, label=base.upper())
    share_axis(axes)
    axes.set_ylim(bottom=-0.01)  # the line of N is often at 0
    whole_number_axis(axes)
    axes.set(xlabel="position in the insert (1 = first base)", ylabel="inserts with the base (%)")
    legend(figure)


@plot
def kmer_enrichment(figure: Figure, columns: Columns, name: str = SEQUENCE_NAME) -> None:
    """Plot the k-mers most enriched and most depleted among the promoters used for pretraining."""
    axes = figure.subplots()
    pairs = list(zip(columns["kmer"], columns["log2_ratio"], strict=True))
    if len(pairs) > 2 * MOST_KMERS:
        pairs = pairs[:MOST_KMERS] + pairs[-MOST_KMERS:]
    places = list(range(len(pairs)))
    ratios = [ratio for _, ratio in pairs]
    axes.barh(places, ratios, height=0.75, color=[BLUE if ratio > 0 else ORANGE for ratio in ratios])
    for place, (kmer, ratio) in zip(places, pairs, strict=True):
        side, align = (-4, "right") if ratio > 0 else (4, "left")  # beside its bar, on the free side of zero
        axes.annotate(
            kmer, (0, place), (side, 0), textcoords="offset points", ha=align, va="center", family="monospace"
        )
    reach = 1.1 * max((abs(ratio) for ratio in ratios), default=1) or 1
    axes.set(xlim=(-reach, reach), ylim=(len(pairs) - 0.4, -0.6), yticks=[])
    axes.axvline(0, color=LINE_GREY, linewidth=1)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"log2(frequency in strong {name}s / frequency in the others)")
