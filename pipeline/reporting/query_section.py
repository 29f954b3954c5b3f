"""Make a page's section from a figure that shows a query of sql/queries."""

from collections.abc import Sequence

from pipeline.reporting.html import Content, Figures, Section
from pipeline.reporting.svg import WIDTH, Draw, render_svg


def query_section(
    name: str, heading: str, text: str, draw: Draw, height: float, width: float = WIDTH, more: Sequence[Content] = ()
) -> Section:
    """Make the section of a figure that shows the result of sql/queries/NAME.sql."""
    figure = Figures([render_svg(name, heading, draw, height, width)])
    return Section(heading, text, [figure, *more], f"sql/queries/{name}.sql")
