"""The input of a build or prediction: which files a user named, of which kind, and with which columns."""

import glob
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa

from pipeline.dataset.input.format import (
    EXPRESSION_NAMES,
    HEAD_LINES,
    SEQUENCE_NAMES,
    Columns,
    Layout,
    ambiguous_label,
    decoded_lines,
    has_label,
    is_number,
    layout_difference,
    text_layout,
)
from pipeline.dataset.input.stream import RowStream, fasta_files
from pipeline.errors import UserError

COMPRESSIONS = ("", ".gz", ".zst")
TEXT_SUFFIXES = (".tsv", ".txt", ".csv")
FASTA_SUFFIXES = (".fasta", ".fa", ".fna")
HEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class Input:
    """Rows of one layout. labelled: whether they have labels; stream: read in place of the files."""

    files: list[str]
    layout: Layout | None
    """None for Parquet files."""
    labelled: bool
    sequence_column: str = "sequence"
    expression_column: str = "expression"
    name_column: str | None = None
    stream: RowStream | None = field(default=None, compare=False)


def find_input(names: list[str], columns: Columns | None = None, labelled: bool = True) -> Input:
    """Resolve names and glob patterns to files, and infer their layout.

    labelled: False if labels are not wanted. Raises UserError for a file that is missing, empty, of an unknown kind or
    unreadable, for files that differ in layout, and for columns that do not exist.
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
        labelled = labelled and any(_has_fasta_label(head) for head in heads.values())
        return Input(files, Layout("fasta"), labelled, stream=fasta_files(files))
    layouts = {file: text_layout(file, head, columns, labelled) for file, head in heads.items()}
    first = layouts[files[0]]
    for file, layout in layouts.items():
        if replace(layout, quoted=False) != replace(first, quoted=False):
            raise UserError(f"{file} differs in layout from {files[0]} ({layout_difference(first, layout)})")
    first = replace(first, quoted=any(layout.quoted for layout in layouts.values()))
    rows = (line for head in heads.values() for line in head[first.skip_lines :])
    return Input(files, first, labelled and first.expression_field > 0 and any(has_label(first, row) for row in rows))


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
            raise UserError(f"{file}: named twice; its rows would be read twice")
        seen.add(path.resolve())
        if not path.exists():
            raise UserError(f"{file}: no such file")
        if not path.is_file():
            raise UserError(f"{file}: not a file; {_files_in(path)}")
        if path.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty")
    return files


def _files_in(folder: Path) -> str:
    """Suggest the pattern that matches most input files of one ending in or below a folder."""
    files = [path for path in islice(folder.rglob("*"), HEAD_LINES) if path.is_file()]
    suffixes = [f"{suffix}{packed}" for suffix in TEXT_SUFFIXES + FASTA_SUFFIXES for packed in COMPRESSIONS]
    patterns = Counter(
        f"{shlex.quote(str(path.parent))}/*{ending}"
        for path in sorted(files)
        for ending in [*suffixes, ".parquet"]
        if path.name.endswith(ending)
    )
    if not patterns:
        return "the folder holds no input files"
    return f"name the files in it, such as {patterns.most_common(1)[0][0]}"


def _kind(file: str) -> str:
    if file.endswith(".parquet"):
        return "parquet"
    for suffixes, kind in ((TEXT_SUFFIXES, "text"), (FASTA_SUFFIXES, "FASTA")):
        if file.endswith(tuple(suffix + packed for suffix in suffixes for packed in COMPRESSIONS)):
            return kind
    raise UserError(
        f"{file}: expected a name ending in {', '.join((*TEXT_SUFFIXES, *FASTA_SUFFIXES))} (and .gz, .zst) or .parquet"
    )


def _head(file: str) -> list[str]:
    """The first lines of a text file."""
    try:
        with pa.input_stream(file) as stream:  # decompresses by the file's name
            data = stream.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    if data[:2] == b"\x1f\x8b" or data[:4] == b"\x28\xb5\x2f\xfd":
        raise UserError(f"{file}: compressed, but not named so; give it a name ending in .gz or .zst")
    lines = decoded_lines(file, data)
    return lines[:-1][:HEAD_LINES] if len(lines) > 1 and len(data) == HEAD_BYTES else lines[:HEAD_LINES]


def _has_fasta_label(lines: list[str]) -> bool:
    """Whether a header ends in a number after another word. (A number alone is a name.)"""
    headers = (re.split(r"[\s=|:;,]+", line[1:].strip()) for line in lines if line[:1] == ">")
    return any(len(words) > 1 and is_number(words[-1]) for words in headers)


def _parquet_input(files: list[str], columns: Columns, labelled: bool) -> Input:
    import pyarrow.parquet as pq

    chosen: tuple[str, str | None, str | None] | None = None
    others: list[str] = []
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{file}: cannot be read as Parquet: {error}") from None
        sequence = _parquet_column(file, columns.sequence, schema.names, SEQUENCE_NAMES)
        expression = _parquet_column(file, columns.expression, schema.names, EXPRESSION_NAMES)
        name = _parquet_column(file, columns.name, schema.names, ())
        if sequence is None:
            raise UserError(
                f"{file}: no column sequence; it has {', '.join(schema.names)}; name it: --sequence-column NAME"
            )
        if chosen is not None and chosen != (sequence, expression, name):
            raise UserError(f"{file}: other columns than {files[0]}; build from one of them")
        numbers = [column for column, kind in zip(schema.names, schema.types, strict=True) if _is_number_type(kind)]
        others = others or [other for other in numbers or schema.names if other != sequence]
        chosen = sequence, expression, name
    assert chosen is not None
    sequence, expression, name = chosen
    if labelled and expression is None and others:
        raise ambiguous_label(files[0], others, others[0])
    return Input(files, None, labelled and expression is not None, sequence, expression or "expression", name)


def _is_number_type(kind: pa.DataType) -> bool:
    return any(is_type(kind) for is_type in (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal))


def _parquet_column(file: str, requested: str | None, names: list[str], known: tuple[str, ...]) -> str | None:
    if requested is None:
        return next((name for known_name in known for name in names if name.lower() == known_name), None)
    if requested in names:
        return requested
    if requested.isdecimal() and 1 <= int(requested) <= len(names):
        return names[int(requested) - 1]
    raise UserError(f"{file}: no column {requested}; it has {', '.join(names)}")
