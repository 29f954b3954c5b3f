"""Figures of explained rows: <svg> elements of a page, SVG files and PNG files."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.interpretation.effect_plot import Drawing, draw_row
from model.interpretation.explained import ExplainedRow
from pipeline.reporting.png import draw_pixels, write_png
from pipeline.reporting.svg import render_svg
from pipeline.runtime.text import shorten

NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
WHITE = 'style="background: #fff"'
"""A figure without a page around it stays readable in a dark window."""
MAX_NAME = 200
"""Characters of a name above a figure."""
_SIZE = re.compile(r'<svg width="([\d.]+)pt" height="([\d.]+)pt"')


def render_row(row: ExplainedRow, label: str, title: str, name: str) -> tuple[str, int]:
    """Draw a row as an <svg> element of a page. Returns also the motif hits for which there was no room.

    title: read aloud by screen readers; name: unique on the page.
    """
    drawing = draw_row(row, label)
    return render_svg(name, title, drawing.draw, drawing.height), drawing.hits_left_out


def write_svg_file(file: Path, rows: Sequence[ExplainedRow], labels: Sequence[str]) -> None:
    """Write the figures of all rows and labels below each other, with their titles."""
    elements = [
        render_svg(f"effects{number}", title or "effects", drawing.draw, drawing.height)
        for number, (title, drawing) in enumerate(_drawings(rows, labels))
    ]
    file.write_text(_stack(elements) + "\n", encoding="utf-8")


def write_png_file(file: Path, rows: Sequence[ExplainedRow], labels: Sequence[str]) -> None:
    """Write the figures of all rows and labels below each other, with their titles."""
    write_png(file, [draw_pixels(drawing.draw, drawing.height) for _, drawing in _drawings(rows, labels)])


def _drawings(rows: Sequence[ExplainedRow], labels: Sequence[str]) -> Iterator[tuple[str, Drawing]]:
    for row in rows:
        for label in labels:
            title = describe_row(row, label, is_label_named=len(labels) > 1)
            yield title, draw_row(row, label, title)


def describe_row(row: ExplainedRow, label: str, is_label_named: bool) -> str:
    """Describe a row in a line: its name, the label if it is named, and the prediction. Empty for one sequence."""
    names = [shorten(part, MAX_NAME) for part in (row.title, label if is_label_named else "") if part]
    if not names:
        return ""
    values = " → ".join(f"{sequence.results[label].prediction:.3f}" for sequence in row.sides.values())
    effect = f" (effect {row.effect(label):+.3f})" if row.is_variant else ""
    return f"{': '.join(names)}: predicted expression {values}{effect}"


def _stack(elements: Sequence[str]) -> str:
    """Make an SVG document of <svg> elements below each other."""
    if len(elements) == 1:
        return elements[0].replace("<svg", f"<svg {NAMESPACE} {WHITE}", 1)
    inner, top, width = [], 0.0, 0.0
    for element in elements:
        size = _SIZE.match(element)
        assert size is not None
        inner.append(_SIZE.sub(rf'<svg y="{top:g}" width="\1" height="\2"', element, count=1))
        width, top = max(width, float(size[1])), top + float(size[2])
    box = f'width="{width:g}pt" height="{top:g}pt" viewBox="0 0 {width:g} {top:g}"'
    return "\n".join([f"<svg {NAMESPACE} {WHITE} {box}>", *inner, "</svg>"])
