"""Infer the layout of rows of text from their first lines: delimiter, header line, columns of sequence and label."""

import csv
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Literal

from pipeline.dataset.input.cells import Table, is_long_sequence, is_missing, is_number
from pipeline.dataset.input.columns import EXPRESSION_NAMES, SEQUENCE_NAMES, Columns, choose_columns
from pipeline.dataset.input.fasta_labels import check_fasta_columns
from pipeline.errors import UserError

DELIMITERS = "\t;,"
"""In the order in which they are tried: a semicolon is used together with decimal commas."""
HEAD_LINES = 1000
"""Lines from which a layout is inferred."""


@dataclass(frozen=True)
class Layout:
    """The layout of rows of text or FASTA. Fields are counted from 1; 0 for expression_field or name_field: none.

    sequence_name and expression_name: as written in the header line, else empty. In FASTA, expression_name is the key
    of the labels in the headers, and expression_field the number of a field of them.
    """

    kind: Literal["text", "fasta"]
    delimiter: str = "\t"
    quoted: bool = False
    skip_lines: int = 0
    columns: int = 2
    sequence_field: int = 1
    expression_field: int = 2
    name_field: int = 0
    sequence_name: str = ""
    expression_name: str = ""


def layout_of_text(name: str, data: bytes, columns: Columns | None = None) -> Layout:
    """Infer the layout of rows on standard input, from their first bytes; labels are ignored.

    Raises UserError if they are not text, or if the column of sequences does not exist.
    """
    lines = decode_lines(name, data)
    lines = lines[:-1] or lines  # the last line may be cut off
    if _begins_with_header(lines):
        check_fasta_columns(name, columns or Columns())
        return Layout("fasta")
    return text_layout(name, lines[:HEAD_LINES], columns or Columns(), labelled=False)


def decode_lines(file: str, data: bytes) -> list[str]:
    """Decode the first bytes of a file into lines. Raises UserError if they are not text."""
    if not data:
        raise UserError(f"{file}: the file is empty")
    if data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1")):  # gzip, Zstandard, Parquet
        fix = "decompress it, or use a file named .gz, .zst or .parquet"
        raise UserError(f"{file}: compressed or Parquet data; expected text; fix: {fix}")
    if b"\0" in data:
        raise UserError(f"{file}: not a text file in UTF-8; fix: save a spreadsheet as CSV in UTF-8")
    return data.decode("utf-8-sig", errors="replace").splitlines() or [""]


def common_layout(heads: dict[str, list[str]], columns: Columns, labelled: bool) -> tuple[Layout, bool]:
    """Infer the layout of tables from the first lines of each file, and whether any of these rows has a label.

    labelled: whether a column of labels is needed. Raises UserError for files that differ in layout.
    """
    layouts = {file: text_layout(file, lines, columns, labelled) for file, lines in heads.items()}
    (first_file, first), *others = layouts.items()
    for file, layout in others:
        values = zip(asdict(first).items(), asdict(layout).values(), strict=True)
        difference = ", ".join(f"{name}: {a!r} and {b!r}" for (name, a), b in values if _differ(name, a, b))
        if difference:
            raise UserError(f"{file}: another layout than {first_file} ({difference}); fix: build from one of them")
    field = first.expression_field
    rows = (_cells(line, first.delimiter) for lines in heads.values() for line in lines[first.skip_lines :])
    has_label = field > 0 and any(len(row) >= field and not is_missing(row[field - 1]) for row in rows)
    return replace(first, quoted=any(layout.quoted for layout in layouts.values())), labelled and has_label


def _differ(name: str, a: object, b: object) -> bool:
    """Whether a property of two layouts differs so that they cannot be read together. Names may differ in case."""
    return name not in ("quoted", "sequence_name") and str(a).casefold() != str(b).casefold()


def text_layout(file: str, lines: list[str], columns: Columns, labelled: bool) -> Layout:
    """Infer the layout of a table from its first lines. labelled: whether a column of labels is needed.

    Raises UserError if the column of sequences or labels is ambiguous or missing.
    """
    if _begins_with_header(lines):
        raise UserError(f"{file}: FASTA, but not by its name; fix: a name ending in .fasta")
    delimiter = next((mark for mark in DELIMITERS if sum(mark in line for line in lines) > len(lines) / 2), "\t")
    rows = [[cell.strip() for cell in _cells(line, delimiter)] for line in lines]
    header = rows[0] if _has_header(rows, columns) else []
    body = rows[1:] if header else rows
    width = Counter(len(row) for row in body).most_common(1)[0][0] if body else len(rows[0])
    table = Table(file, header, body, width)
    choice = choose_columns(table, columns, labelled)
    return Layout(
        "text",
        delimiter,
        quoted=any('"' in line for line in lines),
        skip_lines=int(bool(header)),
        columns=width,
        sequence_field=choice.sequence,
        expression_field=choice.expression,
        name_field=choice.name,
        sequence_name=table.name(choice.sequence),
        expression_name=table.name(choice.expression),
    )


def _begins_with_header(lines: list[str]) -> bool:
    return next((line for line in lines if line.strip()), "")[:1] == ">"


def _has_header(rows: list[list[str]], columns: Columns) -> bool:
    requested = {name.lower() for name in (columns.sequence, columns.expression, columns.name) if name}
    known = {*SEQUENCE_NAMES, *EXPRESSION_NAMES, *(name for name in requested if not name.isdecimal())}
    names = rows[0]
    if any(map(is_long_sequence, names)):  # a row, whatever its other cells hold
        return False
    if not known.isdisjoint(name.lower() for name in names):
        return True
    # Unknown names are words above at least three columns, one of which holds numbers. The challenge's own two columns
    # have no header line: a first row of words is invalid there.
    are_words = all(re.fullmatch(r"[^\W\d][\w .()/%-]*", name) and not is_missing(name) for name in names)
    if len(names) < 3 or not are_words or len(set(names)) < len(names):
        return False
    body = Table("", [], rows[1:], len(names))
    return any(body.mean(field, is_number) > 0.5 for field in body.fields)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [""]) if '"' in line else line.split(delimiter)
