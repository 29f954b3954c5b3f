"""Which files a user named, and how their rows are written: kind, delimiter, header line, columns, labels or none."""

import csv
import glob
import re
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import pyarrow as pa

from pipeline.errors import UserError

PACKED = ("", ".gz", ".zst")
TEXT_SUFFIXES = (".tsv", ".txt", ".csv")
FASTA_SUFFIXES = (".fasta", ".fa", ".fna")
SEQUENCE_NAMES = ("sequence", "seq", "promoter", "promoter_sequence")
EXPRESSION_NAMES = ("expression", "activity", "label", "value", "target", "measurement", "mean_expression", "score")
DELIMITERS = "\t;,"
"""In this order: a semicolon is set where numbers have decimal commas."""
LOOKED_AT = 1000
"""Lines of each file that are looked at."""

_DNA = re.compile(r"[ACGTUNRYSWKMBDHV]+", re.IGNORECASE)
_NO_LABEL = {"", "nan", "na", "n/a", "null", "none", "."}


@dataclass(frozen=True)
class Columns:
    """Columns that the user named: by their name in a header line or Parquet file, or by their number from 1.

    name: of what is carried along to the predictions.
    """

    sequence: str | None = None
    expression: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Layout:
    """How the rows of text or FASTA files are written. Fields are counted from 1; expression_field and name_field 0:
    there is none."""

    kind: Literal["text", "fasta"]
    delimiter: str = "\t"
    quoted: bool = False
    skip_lines: int = 0
    columns: int = 2
    sequence_field: int = 1
    expression_field: int = 2
    name_field: int = 0


@dataclass(frozen=True)
class Input:
    """Files of one layout. labelled: whether the rows have labels."""

    files: list[str]
    layout: Layout | None
    """None for Parquet files."""
    labelled: bool
    sequence_column: str = "sequence"
    expression_column: str = "expression"
    name_column: str | None = None


def find_input(names: list[str], columns: Columns | None = None, labelled: bool = True) -> Input:
    """The files that names and glob patterns stand for, and their layout.

    labelled: False if labels are not wanted. Raises UserError for a file that is missing, empty, of an unknown kind or
    unreadable, for files that differ in layout, and for columns that are not there.
    """
    files = _matching(names)
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise UserError(f"{', '.join(sorted(kinds))} files together: build from one kind, or convert one of them first")
    columns = columns or Columns()
    if kinds == {"parquet"}:
        return _parquet_input(files, columns, labelled)
    heads = {file: _head(file) for file in files}
    if kinds == {"FASTA"}:
        return Input(files, Layout("fasta"), labelled and any(_fasta_labels(head) for head in heads.values()))
    layouts = {file: _layout(file, head, columns, labelled) for file, head in heads.items()}
    first = layouts[files[0]]
    for file, layout in layouts.items():
        if replace(layout, quoted=False) != replace(first, quoted=False):
            raise UserError(f"{file} is written otherwise than {files[0]} ({_differences(first, layout)})")
    first = replace(first, quoted=any(layout.quoted for layout in layouts.values()))
    rows = (line for head in heads.values() for line in head[first.skip_lines :])
    return Input(files, first, labelled and first.expression_field > 0 and any(_has_label(first, row) for row in rows))


def _matching(names: list[str]) -> list[str]:
    files = []
    for name in names:
        is_pattern = glob.has_magic(name) and not Path(name).exists()
        matches = sorted(glob.glob(name)) if is_pattern else [name]  # noqa: PTH207 (Path.glob takes no absolute one)
        if not matches:
            raise UserError(f"{name}: no file matches")
        files += matches
    seen: set[Path] = set()
    for file in files:
        path = Path(file)
        if path.resolve() in seen:
            raise UserError(f"{file}: named twice; its rows would be, too")
        seen.add(path.resolve())
        if not path.exists():
            raise UserError(f"{file}: no such file")
        if not path.is_file():
            raise UserError(f"{file}: not a file; {_instead_of(path)}")
        if path.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty")
    return files


def _instead_of(folder: Path) -> str:
    """What to name in place of a folder: the most files of rows of one ending that lie together in it or below."""
    files = [path for path in islice(folder.rglob("*"), LOOKED_AT) if path.is_file()]
    endings = [*(f"{suffix}{packed}" for suffix in TEXT_SUFFIXES + FASTA_SUFFIXES for packed in PACKED), ".parquet"]
    patterns = Counter(
        f"{shlex.quote(str(path.parent))}/*{ending}"
        for path in sorted(files)
        for ending in endings
        if path.name.endswith(ending)
    )
    if not patterns:
        return "no files of rows lie in it"
    return f"name the files in it, such as {patterns.most_common(1)[0][0]}"


def _kind(file: str) -> str:
    if file.endswith(".parquet"):
        return "parquet"
    for suffixes, kind in ((TEXT_SUFFIXES, "text"), (FASTA_SUFFIXES, "FASTA")):
        if file.endswith(tuple(suffix + packed for suffix in suffixes for packed in PACKED)):
            return kind
    raise UserError(
        f"{file}: expected a name ending in {', '.join((*TEXT_SUFFIXES, *FASTA_SUFFIXES))} (and .gz, .zst) or .parquet"
    )


def _head(file: str) -> list[str]:
    """The first lines of a text file."""
    try:
        with pa.input_stream(file) as stream:  # unpacks by the file's name
            data = stream.read(1 << 20)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    if data[:2] == b"\x1f\x8b" or data[:4] == b"\x28\xb5\x2f\xfd":
        raise UserError(f"{file}: compressed, but not named so; give it a name ending in .gz or .zst")
    lines = _lines(file, data)
    return lines[:-1][:LOOKED_AT] if len(lines) > 1 and len(data) == 1 << 20 else lines[:LOOKED_AT]


def _lines(file: str, data: bytes) -> list[str]:
    if not data:
        raise UserError(f"{file}: the file is empty")
    if b"\0" in data:
        raise UserError(f"{file}: not a text file in UTF-8 (a spreadsheet's Unicode text? Save it as CSV in UTF-8)")
    return data.decode("utf-8-sig", errors="replace").splitlines()


def layout_of_text(name: str, data: bytes, columns: Columns | None = None) -> Layout:
    """The layout of rows without a file name, from their first bytes; labels are not looked for.

    Raises UserError where they are not text, or the column of sequences is not there.
    """
    if data[:2] == b"\x1f\x8b" or data[:4] in (b"\x28\xb5\x2f\xfd", b"PAR1"):
        raise UserError(f"{name}: expected text; unpack it first (zcat FILE.gz | ...), or name the file")
    lines = _lines(name, data)
    lines = lines[:-1] or lines  # the last one may be cut off
    if next((line for line in lines if line.strip()), "")[:1] == ">":
        return Layout("fasta")
    return _layout(name, lines[:LOOKED_AT], columns or Columns(), labelled=False)


def _fasta_labels(lines: list[str]) -> bool:
    """Whether a header ends in a number behind another word. (A number alone is a name.)"""
    headers = (re.split(r"[\s=|:;,]+", line[1:].strip()) for line in lines if line[:1] == ">")
    return any(len(words) > 1 and _is_number(words[-1]) for words in headers)


def _layout(file: str, lines: list[str], columns: Columns, labelled: bool) -> Layout:
    if next((line for line in lines if line.strip()), "")[:1] == ">":
        raise UserError(f"{file}: this looks like FASTA; give it a name ending in .fasta")
    delimiter = next((mark for mark in DELIMITERS if sum(mark in line for line in lines) > len(lines) / 2), "\t")
    quoted = any('"' in line for line in lines)
    rows = [[cell.strip() for cell in _cells(line, delimiter)] for line in lines]
    names = [cell.lower() for cell in rows[0]]
    asked = {
        name.lower() for name in (columns.sequence, columns.expression, columns.name) if name and not name.isdecimal()
    }
    known = {*SEQUENCE_NAMES, *EXPRESSION_NAMES, *asked}
    # A first row with a sequence in it is a row, whatever its other cells say.
    has_header = not known.isdisjoint(names) and not any(map(_is_long_sequence, names))
    has_header = has_header or _looks_like_names(rows)
    body = rows[1:] if has_header else rows
    width = Counter(len(row) for row in body).most_common(1)[0][0] if body else len(names)
    header = names if has_header else []
    sequence = _field(file, columns.sequence, header, width, SEQUENCE_NAMES)
    if sequence is None:
        sequence = _sequence_column(file, body, width, header)
    expression = _field(file, columns.expression, header, width, EXPRESSION_NAMES)
    if expression is None and labelled:
        expression = _only_label_column(file, body, [f for f in range(1, width + 1) if f != sequence], header)
    if expression and labelled and _share(body, expression, _is_decimal_comma) > 0:
        raise UserError(f"{file}: numbers with a decimal comma, such as 12,5; write them with a point")
    name = _field(file, columns.name, header, width, ())
    return Layout("text", delimiter, quoted, int(has_header), width, sequence, expression or 0, name or 0)


def _looks_like_names(rows: list[list[str]]) -> bool:
    """Whether a first row is one of names that are not known: words over columns of which one holds numbers.

    Rows of two columns, the challenge's own form, have no header line: a first one of words is a row gone wrong.
    """
    names, body = rows[0], rows[1:]
    words = all(re.fullmatch(r"[^\W\d][\w .()/%-]*", name) and not _is_missing(name) for name in names)
    if len(names) < 3 or not words or len(set(names)) < len(names) or any(map(_is_long_sequence, names)):
        return False
    return any(_share(body, field, _is_number) > 0.5 for field in range(1, len(names) + 1))


def _sequence_column(file: str, body: list[list[str]], width: int, header: list[str]) -> int:
    """The column of DNA; of several one that is much longer than the others, which are barcodes.

    Raises UserError where two could be meant, and where a header line stands over none.
    """
    shares = {field: _share(body, field, _is_sequence) for field in range(1, width + 1)}
    if header and body and not any(shares.values()):
        raise UserError(
            f"{file}: no column holds sequences; columns: {', '.join(header)}; if it is one of them, "
            "name it: --sequence-column NAME"
        )
    dna = [field for field, share in shares.items() if share > 0.5]
    if not dna:
        return max(shares, key=lambda field: (shares[field], _mean_length(body, field)))
    longest = max(_mean_length(body, field) for field in dna)
    close = [field for field in dna if _mean_length(body, field) > longest / 2]
    if len(close) > 1:
        raise _several(file, close, header, "--sequence-column")
    return close[0]


def _several(file: str, fields: list[int], header: list[str], option: str) -> UserError:
    names = ", ".join(f"{field} ({header[field - 1]})" if header else str(field) for field in fields)
    return UserError(f"{file}: columns {names} could each be meant; choose one: {option} NUMBER")


def _only_label_column(file: str, body: list[list[str]], others: list[int], header: list[str]) -> int:
    """The one column beside the sequences that holds numbers, or else missing ones; 0 where there is no other column.

    Raises UserError where several could be meant, or, under a header line, where its name is not a known one.
    """
    numbers = [field for field in others if _share(body, field, _is_number) > 0.2]
    if len(numbers) > 1 or (header and numbers):
        names = {field: header[field - 1] if header else str(field) for field in numbers}
        # Labels are hardly ever whole numbers; those of rows are.
        example = next((field for field in numbers if _share(body, field, str.isdecimal) < 1), numbers[0])
        raise _which_label(file, list(names.values()), names[example])
    missing = [field for field in others if _share(body, field, _is_missing) > 0.5]
    return (numbers or missing or others or [0])[0]


def _which_label(file: str, names: list[str], example: str) -> UserError:
    verb = "is" if len(names) == 1 else "are"
    return UserError(
        f"{file}: which column is the label? There {verb} {', '.join(names)}; "
        f"name it, such as --expression-column {shlex.quote(example)}"
    )


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [""]) if '"' in line else line.split(delimiter)


def _field(file: str, asked: str | None, header: list[str], width: int, known: tuple[str, ...]) -> int | None:
    """The number of the column that was asked for or that has a known name; None where neither is so."""
    if asked is None:
        found = [place + 1 for place, name in enumerate(header) if name in known]
        if len(found) > 1:
            option = "--sequence-column" if known is SEQUENCE_NAMES else "--expression-column"
            raise _several(file, found, header, option)
        return found[0] if found else None
    if asked.lower() in header:
        return header.index(asked.lower()) + 1
    if asked.isdecimal():
        if not 1 <= int(asked) <= width:
            raise UserError(f"{file}: no column {asked}; it has {width}")
        return int(asked)
    has = f"it has {', '.join(header)}" if header else "it has no header line"
    raise UserError(f"{file}: no column {asked}; {has}")


def _share(rows: list[list[str]], field: int, test: Callable[[str], bool]) -> float:
    cells = [row[field - 1] for row in rows if len(row) >= field]
    return sum(map(test, cells)) / len(cells) if cells else 0.0


def _mean_length(rows: list[list[str]], field: int) -> float:
    cells = [len(row[field - 1]) for row in rows if len(row) >= field]
    return sum(cells) / len(cells) if cells else 0.0


def _is_decimal_comma(cell: str) -> bool:
    return re.fullmatch(r"[+-]?\d+,\d+", cell) is not None


def _is_sequence(cell: str) -> bool:
    """DNA, spaces or none in it, and not a short word that happens to be of its letters."""
    letters = "".join(cell.split())
    return len(letters) > 3 and _DNA.fullmatch(letters) is not None


def _is_long_sequence(cell: str) -> bool:
    """DNA that is no word."""
    return len(cell) > 9 and _is_sequence(cell)


def _is_number(cell: str) -> bool:
    try:
        return float(cell) == float(cell)
    except ValueError:
        return False


def _is_missing(cell: str) -> bool:
    return cell.lower() in _NO_LABEL


def _has_label(layout: Layout, line: str) -> bool:
    cells = _cells(line, layout.delimiter)
    field = layout.expression_field
    return len(cells) >= field and cells[field - 1].strip().lower() not in _NO_LABEL


def _differences(a: Layout, b: Layout) -> str:
    names = ("delimiter", "skip_lines", "columns", "sequence_field", "expression_field", "name_field")
    return ", ".join(f"{n}: {getattr(a, n)!r} and {getattr(b, n)!r}" for n in names if getattr(a, n) != getattr(b, n))


def _parquet_input(files: list[str], columns: Columns, labelled: bool) -> Input:
    import pyarrow.parquet as pq

    chosen: tuple[str, str | None, str | None] | None = None
    others: list[str] = []
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{file}: cannot be read as Parquet: {error}") from None
        found = schema.names
        sequence = _parquet_column(file, columns.sequence, found, SEQUENCE_NAMES)
        expression = _parquet_column(file, columns.expression, found, EXPRESSION_NAMES)
        if sequence is None:
            raise UserError(f"{file}: no column sequence; it has {', '.join(found)}; name it: --sequence-column NAME")
        name = _parquet_column(file, columns.name, found, ())
        if chosen is not None and chosen != (sequence, expression, name):
            raise UserError(f"{file} has other columns than {files[0]}; build from one of them")
        numbers = [column for column, kind in zip(found, schema.types, strict=True) if _is_number_type(kind)]
        others = others or [other for other in numbers or found if other != sequence]
        chosen = sequence, expression, name
    assert chosen is not None
    sequence, expression, name = chosen
    if labelled and expression is None and others:
        raise _which_label(files[0], others, others[0])
    return Input(files, None, labelled and expression is not None, sequence, expression or "expression", name)


def _is_number_type(kind: pa.DataType) -> bool:
    return any(is_number(kind) for is_number in (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal))


def _parquet_column(file: str, asked: str | None, found: list[str], known: tuple[str, ...]) -> str | None:
    if asked is not None:
        if asked not in found and asked.isdecimal() and 1 <= int(asked) <= len(found):
            return found[int(asked) - 1]
        if asked not in found:
            raise UserError(f"{file}: no column {asked}; it has {', '.join(found)}")
        return asked
    return next((name for known_name in known for name in found if name.lower() == known_name), None)
