"""Render tables and figures as one HTML page without external files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder


@dataclass(frozen=True)
class Table:
    """Rows of text below column heads; the columns in `numbers`, counted from 0, are aligned to the right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Listing:
    """Preformatted text."""

    text: str
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class Figures:
    """<svg> elements of pipeline.reporting.svg; side by side if the screen is wide enough."""

    svgs: Sequence[str]
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Fold:
    """Details that are hidden until the reader clicks on the title."""

    title: str
    content: Table | Listing | Figures
    kind: ClassVar[str] = "fold"


Content = Table | Listing | Figures | Fold


@dataclass(frozen=True)
class Section:
    """A heading, an explanation, and contents.

    text: its paragraphs are separated by an empty line. source: the query or command that gives the first of contents.
    """

    heading: str
    text: str
    contents: Sequence[Content] = ()
    source: str = ""


def render_page(title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """Render a whole page. All texts are escaped; only the <svg> elements are inserted as they are."""
    template = page_environment().get_template("page.html")
    return template.render(title=title, lead=lead, sections=sections, footer=footer)


def page_environment(*packages: str) -> Environment:
    """Return the environment of the page template, and of templates of other packages that extend it."""
    loaders = [PackageLoader(package) for package in ("pipeline.reporting", *packages)]
    return Environment(
        loader=ChoiceLoader(loaders), autoescape=True, trim_blocks=True, keep_trailing_newline=True,
        undefined=StrictUndefined,
    )  # fmt: skip


def expect_page_name(out: Path) -> None:
    """Raise UserError unless a page can be written to `out`: an .html name in a folder that exists."""
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"{out}: expected a name ending in .html")
    expect_folder(out)
