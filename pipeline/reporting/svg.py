"""Drawing for a page: a figure in, inline SVG out, and what the pictures share.

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

Draw = Callable[["Figure"], None]

WIDTH = 7.2
MIDDLE_WIDTH = 5.4
HALF_WIDTH = 3.6
"""Inches: as wide as the page; narrow enough for a phone to show its letters; one of two side by side."""
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
    "path.simplify": False,  # every number that is drawn can be read back
}


def svg(name: str, title: str, height: float, draw: Draw, width: float = WIDTH) -> str:
    """What `draw` puts on an empty figure of `height` times `width` inches, as an <svg> element for a page.

    name: unique on the page; makes the element's inner ids. title: what a screen reader says.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=(width, height), layout="constrained")
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


def label_axes(axes: "Axes", x: str, y: str) -> None:
    """What the two axes show."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def legend(figure: "Figure") -> None:
    """Above the axes, in one row: it never covers the data."""
    figure.legend(loc="outside upper left", ncols=5)


def count_axis(axes: "Axes", highest: float) -> None:
    """Whole numbers of promoters, with room above the highest bar."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_ylim(0, 1.06 * highest)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def log_count_axis(axes: "Axes", highest: float) -> None:
    """Promoters on a logarithmic scale that starts below 1, so that a single one is seen."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.set_ylim(0.7, 2 * highest)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def share_axis(axes: "Axes") -> None:
    """Per cent from 0 on."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def whole_number_axis(axes: "Axes") -> None:
    """Ticks of x at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))
