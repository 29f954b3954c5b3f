"""A page of tables and pictures as one HTML text that needs nothing from outside."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

CSS = """
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 46rem; background: #fff; color: #1f2933;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .4rem; }
p { margin: .4rem 0 .8rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e5e7eb;
  overflow-wrap: anywhere; }
th:first-child, td:first-child { overflow-wrap: break-word; }
td { min-width: 5.5rem; }
th { font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; overflow-wrap: normal;
  min-width: 0; }
th.number { white-space: normal; }
figure { margin: .5rem 0 0; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption, footer { color: #52606d; font-size: .85rem; }
footer { margin-top: 3rem; border-top: 1px solid #e5e7eb; padding-top: .6rem;
  overflow-wrap: anywhere; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: .5rem 1rem; }
.side svg { width: 100%; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: #52606d; font-size: .9rem; }
pre { overflow-x: auto; font-size: .82rem; line-height: 1.4; background: #f5f7f9; padding: .6rem .8rem; }
code, pre { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: .92em; }
""".strip()


@dataclass(frozen=True)
class Table:
    """Rows of text below column heads; columns whose number stands in `numbers` are aligned to the right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Listing:
    """Text as it is, line by line."""

    text: str


@dataclass(frozen=True)
class Side:
    """Small pictures, <svg> elements: side by side where the screen is wide, else below each other."""

    pictures: Sequence[str]


@dataclass(frozen=True)
class Fold:
    """What most readers need not see: closed until it is clicked."""

    title: str
    content: Table | Listing


Content = Table | Listing | Side | Fold | str
"""What is seen; a text is an <svg> element."""


@dataclass(frozen=True)
class Section:
    """A heading, what to see, what is seen, the query file that answers it, and what stands below."""

    heading: str
    says: str
    content: Content | None
    query: str = ""
    more: Sequence[Content] = ()


def page(title: str, lead: str, sections: Sequence[Section], end: str) -> str:
    """The whole page. All texts are escaped; only the <svg> elements go in as they are."""
    head = html.escape(title)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{head}</title>",
            f"<style>\n{CSS}\n</style>",
            "</head>",
            "<body>",
            f"<h1>{head}</h1>",
            f"<p>{html.escape(lead)}</p>",
            *(_section(section) for section in sections),
            f"<footer>{html.escape(end)}</footer>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.heading)}</h2>"]
    if section.says:
        parts.append(f"<p>{html.escape(section.says)}</p>")
    if section.content is not None:
        parts.append(_content(section.content, section.query))
    parts += [_content(content) for content in section.more]
    return "\n".join(["<section>", *parts, "</section>"])


def _content(content: Content, query: str = "") -> str:
    """query: shown as the source, where there is one."""
    source = f"<code>{html.escape(query)}</code>" if query else ""
    match content:
        case Table():
            return _table(content) + (f"\n<p><small>{source}</small></p>" if source else "")
        case Listing():
            return f"<pre>{html.escape(content.text)}</pre>"
        case Fold():
            return (
                f"<details>\n<summary>{html.escape(content.title)}</summary>\n{_content(content.content)}\n</details>"
            )
        case Side():
            return "\n".join(['<div class="side">', *map(_content, content.pictures), "</div>"])
        case _:
            caption = f"\n<figcaption>{source}</figcaption>" if source else ""
            return f"<figure>\n{content}{caption}\n</figure>"


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if place in table.numbers else "" for place in range(len(cells))]
        inner = "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{inner}</tr>"

    rows = "\n".join(row(cells, "td") for cells in table.rows)
    head = f"<thead>{row(table.heads, 'th')}</thead>\n" if table.heads else ""
    return f'<div class="table"><table>\n{head}<tbody>\n{rows}\n</tbody>\n</table></div>'
