"""Sequence logo: letters whose height is a value per base, such as its importance."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from pipeline.reporting.palette import BLACK, BLUE, GREEN, GREY, LINE_GREY, ORANGE

BASE_COLOURS = dict(zip("ACGTN-", (GREEN, BLUE, BLACK, ORANGE, GREY, GREY), strict=True))
LETTER_WIDTH = 0.9
"""Width of a letter, in columns."""
MIN_HEIGHT = 0.004
"""Smallest height of a letter that is drawn, as a share of the largest."""


def draw_logo(
    axes: Axes, letters: str, heights: npt.NDArray[np.float32], columns: range, marked: Sequence[int] = ()
) -> None:
    """Draw the letters of some columns as a logo, and below the axis as text, so that small ones can be read.

    letters: of all columns, - for a gap; heights: (columns,), negative ones are drawn upside down below zero. marked:
    columns with a coloured background.
    """
    smallest = MIN_HEIGHT * float(np.abs(heights).max(initial=0))
    shown = [at for at in columns if letters[at] != "-" and abs(heights[at]) > smallest]
    paths = [_place(letters[at], at, float(heights[at])) for at in shown]
    axes.add_collection(
        PathCollection(paths, facecolors=[BASE_COLOURS[letters[at]] for at in shown], linewidths=0), autolim=False
    )
    mark_columns(axes, marked, columns)
    axes.axhline(0, color=LINE_GREY, linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(list(columns), list(letters[columns.start : columns.stop]), family="monospace", weight="bold")
    axes.tick_params(axis="x", length=0)
    for label in axes.get_xticklabels():
        label.set_color(BASE_COLOURS[label.get_text()])


def mark_columns(axes: Axes, marked: Sequence[int], columns: range) -> None:
    """Colour the background of marked columns; successive ones together."""
    shown = np.array([at for at in marked if at in columns], int)
    for run in np.split(shown, np.flatnonzero(np.diff(shown) > 1) + 1):
        if len(run):
            axes.axvspan(run[0] - 0.5, run[-1] + 0.5, color="#fbe3c0", linewidth=0, zorder=0)


def _place(letter: str, column: int, height: float) -> Path:
    """Scale the outline of a letter to its height, in the middle of its column."""
    place = Affine2D().scale(LETTER_WIDTH, height).translate(column - LETTER_WIDTH / 2, 0)
    return place.transform_path(_outline(letter))


@cache
def _outline(letter: str) -> Path:
    """Return the outline of a letter in the unit square. The font is part of matplotlib."""
    path = TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    box = path.get_extents()
    return Affine2D().translate(-box.x0, -box.y0).scale(1 / box.width, 1 / box.height).transform_path(path)
