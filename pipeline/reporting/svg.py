"""Draw figures as inline <svg> elements.

The same numbers give the same bytes: the user's matplotlib settings are ignored, ids are fixed, and there is no date.
Text stays text, so that a page can be searched.
"""

import functools
import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline.reporting.html import Content, Figures, Section
from pipeline.reporting.palette import LINE_GREY

P = ParamSpec("P")
Draw = Callable[[Figure], None]
"""A function that draws its data on an empty figure."""

WIDTH = 7.2
MIDDLE_WIDTH = 5.4
HALF_WIDTH = 3.6
"""Widths of figures in inches: the full page, readable on a phone, and one of two side by side.

On a narrow screen, figures of the full page scroll; others scale.
"""
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.edgecolor": LINE_GREY,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "path.simplify": False,  # tests read every number back
    "text.parse_math": False,  # names of rows and units may have dollar signs
}


def plot(function: Callable[Concatenate[Figure, P], None]) -> Callable[P, Draw]:
    """Decorate a plot function: called with its data only, it returns a function that draws on a figure."""

    @functools.wraps(function)
    def bind(*args: P.args, **kwargs: P.kwargs) -> Draw:
        return lambda figure: function(figure, *args, **kwargs)

    return bind


def render_svg(name: str, title: str, draw: Draw, height: float, width: float = WIDTH) -> str:
    """Draw a figure of `height` times `width` inches as an <svg> element for a page.

    name: unique on the page, hashed into the element's inner ids. title: read aloud by screen readers.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return _inline(file.getvalue(), title, wide=width > MIDDLE_WIDTH)


def _inline(document: str, title: str, wide: bool) -> str:
    """Convert an SVG document into an element of an HTML page."""
    element = document[document.index("<svg") :].strip()
    element = re.sub(r"\s*<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    # HTML needs no namespaces, and ids of groups would repeat in each figure of the page.
    element = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element).replace("xlink:href", "href")
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    text, width = html.escape(title), ' class="wide"' if wide else ""
    end = f'{width} role="img" aria-label="{text}"><title>{text}</title>'
    return element.replace(">", end, 1)  # no regular expression: a title may have backslashes


def query_section(
    name: str, heading: str, text: str, draw: Draw, height: float, more: Sequence[Content] = ()
) -> Section:
    """Make the section of a figure that shows the result of sql/queries/NAME.sql."""
    figure = Figures([render_svg(name, heading, draw, height, MIDDLE_WIDTH)])
    return Section(heading, text, [figure, *more], f"sql/queries/{name}.sql")
