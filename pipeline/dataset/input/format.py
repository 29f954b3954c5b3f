"""Infer the layout of rows of text from their first lines: delimiter, header line, columns of sequence and label."""

import csv
import re
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipeline.dataset.input.cells import HEAD_LINES, Table, is_long_sequence, is_missing, is_number
from pipeline.dataset.input.columns import EXPRESSION_NAMES, SEQUENCE_NAMES, Columns, choose_columns
from pipeline.dataset.input.fasta_labels import check_fasta_columns
from pipeline.dataset.input.lines import first_lines
from pipeline.dataset.input.table_head import find_delimiter, with_row_names
from pipeline.errors import UserError


@dataclass(frozen=True)
class Layout:
    """The layout of rows of text or FASTA. Fields are counted from 1; 0 for expression_field or name_field: none.

    skip_lines: 1 with a header line; comment_lines: lines before that begin with #, in all files together; row_names:
    whether the first column has no name in the header line, as R writes row names.
    sequence_name and expression_name: as written in the header line, else empty. In FASTA, expression_name is the key
    of the labels in the headers, and expression_field the number of a header field. label_fields: all columns of
    labels, the first of which is expression_field; header: the names of all columns, empty without a header line.
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
    comment_lines: int = 0
    row_names: bool = False
    label_fields: tuple[int, ...] = ()
    header: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the values that describe one label, without the header line."""
        values = asdict(self)
        del values["label_fields"], values["header"]
        return values


def layout_of_text(name: str, data: bytes, columns: Columns | None = None) -> Layout:
    """Infer the layout of rows on standard input, from their first bytes; labels are ignored.

    Raises UserError if the bytes are not text, or if the column of sequences does not exist.
    """
    lines = first_lines(name, [data], HEAD_LINES + 1, len(data))
    if not data.endswith((b"\n", b"\r")):
        lines = lines[:-1] or lines  # the last line may be cut off
    if _begins_with_header(lines):
        check_fasta_columns(name, columns or Columns())
        return Layout("fasta")
    columns = columns or Columns()
    comments, lines = without_comments(name, lines, columns)
    return replace(text_layout(name, lines, columns, labelled=False), comment_lines=comments)


def without_comments(file: str, lines: list[str], columns: Columns) -> tuple[int, list[str]]:
    """Count the comment lines (#) before the header or first row, and return the lines after them.

    A last comment line that names the columns is the header line: it is returned, without its #.
    """
    is_comment = [line.startswith("#") or not line.strip() for line in lines]
    count = next((place for place, comment in enumerate(is_comment) if not comment), 0)
    if not any(line.startswith("#") for line in lines[:count]):
        return 0, lines
    named = [lines[count - 1].lstrip("# "), *lines[count:]]
    delimiter = find_delimiter(file, lines[count:])
    is_header = _has_header([[cell.strip() for cell in _cells(line, delimiter)] for line in named], columns)
    return (count - 1, named) if is_header else (count, lines[count:])


def common_layout(
    heads: dict[str, list[str]], columns: Columns, labelled: bool, keep_columns: bool = True
) -> tuple[Layout, bool]:
    """Infer the layout of tables from the first lines of each file, and whether any of these rows has a label.

    labelled: whether a column of labels is needed; keep_columns: whether all columns must agree in name. Raises
    UserError for files that differ in layout.
    """
    layouts = {file: text_layout(file, lines, columns, labelled) for file, lines in heads.items()}
    (first_file, first), *others = layouts.items()
    for file, layout in others:
        values = zip(first.as_dict().items(), layout.as_dict().values(), strict=True)
        differences = [f"{name}: {a!r} and {b!r}" for (name, a), b in values if _differ(name, a, b)]
        names = zip(range(1, first.columns + 1), first.header, layout.header, strict=False)
        differences += [
            f"column {field}: {a!r} and {b!r}"
            for field, a, b in names
            if keep_columns and field != first.sequence_field and a.casefold() != b.casefold()
        ]
        difference = ", ".join(differences)
        if difference:
            raise UserError(
                f"{file}: its layout differs from that of {first_file} ({difference}); fix: build from one of them"
            )
    rows = (_cells(line, first.delimiter) for lines in heads.values() for line in lines[first.skip_lines :])
    has_label = any(
        len(row) >= field and not is_missing(row[field - 1])
        for row in (rows if first.label_fields else ())
        for field in first.label_fields
    )
    return replace(first, quoted=any(layout.quoted for layout in layouts.values())), labelled and has_label


def _differ(name: str, a: object, b: object) -> bool:
    """Whether a property of two layouts differs so that they cannot be read together. Names may differ in case."""
    return name not in ("quoted", "sequence_name") and str(a).casefold() != str(b).casefold()


def text_layout(file: str, lines: list[str], columns: Columns, labelled: bool) -> Layout:
    """Infer the layout of a table from its first lines. labelled: whether a column of labels is needed.

    Raises UserError if the column of sequences or labels is ambiguous or missing.
    """
    if _begins_with_header(lines):
        raise UserError(f"{file}: FASTA without its suffix; fix: rename it to end in .fasta")
    delimiter = find_delimiter(file, lines)
    rows = [[cell.strip() for cell in _cells(line, delimiter)] for line in lines]
    header = rows[0] if _has_header(rows, columns) else []
    body = rows[1:] if header else rows
    header = with_row_names(file, header, body)
    row_names = len(header) > len(rows[0])
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
        row_names=row_names,
        label_fields=choice.labels,
        header=tuple(header),
    )


def _begins_with_header(lines: list[str]) -> bool:
    return next((line for line in lines if line.strip() and not line.startswith(";")), "")[:1] == ">"


def _has_header(rows: list[list[str]], columns: Columns) -> bool:
    requested = {name.lower() for name in (columns.sequence, *columns.labels, columns.name) if name}
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
    if '"' in line:
        with suppress(csv.Error):  # for a field longer than the limit of module csv
            return next(csv.reader([line], delimiter=delimiter), [""])
    return line.split(delimiter)
