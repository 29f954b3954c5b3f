"""Infer the layout of rows of text from their first lines: delimiter, header line, columns of sequence and label."""

import csv
import re
import shlex
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Literal

from pipeline.dataset.input.lines import first_lines
from pipeline.dataset.input.table_head import find_delimiter, with_row_names
from pipeline.errors import UserError

SEQUENCE_NAMES = ("sequence", "seq", "promoter", "promoter_sequence")
EXPRESSION_NAMES = ("expression", "activity", "label", "value", "target", "measurement", "mean_expression", "score")
HEAD_LINES = 1000
"""Lines from which a layout is inferred."""
MISSING_LABELS = {"", "nan", "na", "n/a", "null", "none", "."}

Rows = list[list[str]]
"""Cells of the first lines."""

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_DNA = re.compile(r"[ACGTUNRYSWKMBDHV]+", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """Columns requested by their name in a header line or Parquet file, or by their number from 1.

    name: the column that is copied to the predictions.
    """

    sequence: str | None = None
    expression: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Layout:
    """The layout of rows of text or FASTA. Fields are counted from 1; 0 for expression_field or name_field: none.

    skip_lines: 1 with a header line; comment_lines: lines before that begin with #, in all files together; row_names:
    whether the first column has no name in the header line, as R writes row names.
    """

    kind: Literal["text", "fasta"]
    delimiter: str = "\t"
    quoted: bool = False
    skip_lines: int = 0
    columns: int = 2
    sequence_field: int = 1
    expression_field: int = 2
    name_field: int = 0
    comment_lines: int = 0
    row_names: bool = False


def layout_of_text(name: str, data: bytes, columns: Columns | None = None) -> Layout:
    """Infer the layout of rows on standard input, from their first bytes; labels are ignored.

    Raises UserError if the bytes are not text, or if the column of sequences does not exist.
    """
    lines = first_lines(name, [data], HEAD_LINES + 1, len(data))
    if not data.endswith((b"\n", b"\r")):
        lines = lines[:-1] or lines  # the last line may be cut off
    if _begins_with_header(lines):
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


def common_layout(heads: dict[str, list[str]], columns: Columns, labelled: bool) -> tuple[Layout, bool]:
    """Infer the layout of tables from the first lines of each file, and whether any of these rows has a label.

    labelled: whether a column of labels is needed. Raises UserError for files that differ in layout.
    """
    layouts = {file: text_layout(file, lines, columns, labelled) for file, lines in heads.items()}
    (first_file, first), *others = layouts.items()
    for file, layout in others:
        values = zip(asdict(first).items(), asdict(layout).values(), strict=True)
        difference = ", ".join(f"{name}: {a!r} and {b!r}" for (name, a), b in values if a != b and name != "quoted")
        if difference:
            raise UserError(f"{file}: another layout than {first_file} ({difference}); fix: build from one of them")
    field = first.expression_field
    rows = (_cells(line, first.delimiter) for lines in heads.values() for line in lines[first.skip_lines :])
    has_label = field > 0 and any(len(row) >= field and not _is_missing(row[field - 1].strip()) for row in rows)
    return replace(first, quoted=any(layout.quoted for layout in layouts.values())), labelled and has_label


def has_fasta_label(lines: list[str]) -> bool:
    """Whether a header ends in a number after another word. (A number alone is a name.)"""
    headers = (re.split(r"[\s=|:;,]+", line[1:].strip()) for line in lines if line[:1] == ">")
    return any(len(words) > 1 and _is_number(words[-1]) for words in headers)


def text_layout(file: str, lines: list[str], columns: Columns, labelled: bool) -> Layout:
    """Infer the layout of a table from its first lines. labelled: whether a column of labels is needed.

    Raises UserError if the column of sequences or labels is ambiguous or missing.
    """
    if _begins_with_header(lines):
        raise UserError(f"{file}: FASTA, but not by its name; fix: a name ending in .fasta")
    delimiter = find_delimiter(file, lines)
    rows = [[cell.strip() for cell in _cells(line, delimiter)] for line in lines]
    header = [cell.lower() for cell in rows[0]] if _has_header(rows, columns) else []
    body = rows[1:] if header else rows
    header = with_row_names(file, header, body)
    row_names = len(header) > len(rows[0])
    width = Counter(len(row) for row in body).most_common(1)[0][0] if body else len(rows[0])
    sequence = _named_field(file, columns.sequence, header, width, SEQUENCE_NAMES)
    if sequence is None:
        sequence = _sequence_field(file, body, width, header)
    expression = _named_field(file, columns.expression, header, width, EXPRESSION_NAMES)
    if expression is None and labelled:
        expression = _label_field(file, body, [f for f in range(1, width + 1) if f != sequence], header)
    if expression and labelled and _mean(body, expression, lambda cell: bool(_DECIMAL_COMMA.fullmatch(cell))) > 0:
        raise UserError(f"{file}: numbers with a decimal comma, such as 12,5; expected a point")
    name = _named_field(file, columns.name, header, width, ())
    quoted = any('"' in line for line in lines)
    fields = sequence, expression or 0, name or 0
    return Layout("text", delimiter, quoted, int(bool(header)), width, *fields, row_names=row_names)


def ambiguous_label(file: str, names: list[str], example: str) -> UserError:
    """Make the error for a file with columns of numbers of which none has a known name."""
    fix = f"name it, such as --expression-column {shlex.quote(example)}"
    return UserError(f"{file}: ambiguous label column: {', '.join(names)}; fix: {fix}")


def _begins_with_header(lines: list[str]) -> bool:
    return next((line for line in lines if line.strip()), "")[:1] == ">"


def _has_header(rows: Rows, columns: Columns) -> bool:
    requested = {name.lower() for name in (columns.sequence, columns.expression, columns.name) if name}
    known = {*SEQUENCE_NAMES, *EXPRESSION_NAMES, *(name for name in requested if not name.isdecimal())}
    names = rows[0]
    if any(map(_is_long_sequence, names)):  # a row, whatever its other cells hold
        return False
    if not known.isdisjoint(name.lower() for name in names):
        return True
    # Unknown names are words above at least three columns, one of which holds numbers. The challenge's own two columns
    # have no header line: a first row of words is invalid there.
    are_words = all(re.fullmatch(r"[^\W\d][\w .()/%-]*", name) and not _is_missing(name) for name in names)
    if len(names) < 3 or not are_words or len(set(names)) < len(names):
        return False
    return any(_mean(rows[1:], field, _is_number) > 0.5 for field in range(1, len(names) + 1))


def _named_field(file: str, requested: str | None, header: list[str], width: int, known: tuple[str, ...]) -> int | None:
    """Find the number of the requested column, or of the one with a known name; None if there is neither."""
    if requested is None:
        fields = [field for field, name in enumerate(header, 1) if name in known]
        if len(fields) > 1:
            option = "--sequence-column" if known is SEQUENCE_NAMES else "--expression-column"
            raise _ambiguous(file, fields, header, option)
        return fields[0] if fields else None
    if requested.lower() in header:
        return header.index(requested.lower()) + 1
    if requested.isdecimal() and 1 <= int(requested) <= width:
        return int(requested)
    columns = ", ".join(header) if header else f"{width} columns and no header line"
    raise UserError(f"{file}: no column {requested}; it has {columns}")


def _sequence_field(file: str, body: Rows, width: int, header: list[str]) -> int:
    """Find the column of DNA; of several, the one that is much longer than the others, which are barcodes.

    Raises UserError for several columns of similar length, and for a table with a header line but no DNA.
    """
    shares = {field: _mean(body, field, _is_sequence) for field in range(1, width + 1)}
    lengths = {field: _mean(body, field, len) for field in shares}
    if header and body and not any(shares.values()):
        names = ", ".join(header)
        raise UserError(f"{file}: no column holds sequences; got columns {names}; fix: --sequence-column NAME")
    dna = [field for field, share in shares.items() if share > 0.5]
    if not dna:
        return max(shares, key=lambda field: (shares[field], lengths[field]))
    longest = max(lengths[field] for field in dna)
    similar = [field for field in dna if lengths[field] > longest / 2]
    if len(similar) > 1:
        raise _ambiguous(file, similar, header, "--sequence-column")
    return similar[0]


def _label_field(file: str, body: Rows, others: list[int], header: list[str]) -> int:
    """Find the one other column that holds numbers, or else missing labels; 0 if there is no other column.

    Raises UserError for several columns of numbers, and for a single one under an unknown name.
    """
    numbers = [field for field in others if _mean(body, field, _is_number) > 0.2]
    if len(numbers) > 1 or (header and numbers):
        names = {field: header[field - 1] if header else str(field) for field in numbers}
        # Labels are hardly ever whole numbers; row numbers are.
        example = next((field for field in numbers if _mean(body, field, str.isdecimal) < 1), numbers[0])
        raise ambiguous_label(file, list(names.values()), names[example])
    missing = [field for field in others if _mean(body, field, _is_missing) > 0.5]
    return (numbers or missing or others or [0])[0]


def _ambiguous(file: str, fields: list[int], header: list[str], option: str) -> UserError:
    names = ", ".join(f"{field} ({header[field - 1]})" if header else str(field) for field in fields)
    return UserError(f"{file}: ambiguous columns {names}; fix: choose one: {option} NUMBER")


def _cells(line: str, delimiter: str) -> list[str]:
    if '"' in line:
        with suppress(csv.Error):  # for a field longer than the limit of module csv
            return next(csv.reader([line], delimiter=delimiter), [""])
    return line.split(delimiter)


def _mean(rows: Rows, field: int, measure: Callable[[str], int]) -> float:
    """Average a number, or a condition, over the cells of a column; 0 if no row has it."""
    cells = [row[field - 1] for row in rows if len(row) >= field]
    return sum(map(measure, cells)) / len(cells) if cells else 0.0


def _is_number(cell: str) -> bool:
    """Whether a cell holds a number; NaN is not one."""
    try:
        return float(cell) == float(cell)
    except ValueError:
        return False


def _is_sequence(cell: str) -> bool:
    """Whether a cell holds DNA, with or without spaces, and not a short word of the same letters."""
    letters = "".join(cell.split())
    return len(letters) > 3 and _DNA.fullmatch(letters) is not None


def _is_long_sequence(cell: str) -> bool:
    """Whether a cell holds DNA too long to be a word."""
    return len(cell) > 9 and _is_sequence(cell)


def _is_missing(cell: str) -> bool:
    return cell.lower() in MISSING_LABELS
