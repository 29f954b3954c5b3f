"""The input of a build or prediction: its files, their kind and their columns."""

import glob
import re
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import pyarrow as pa

from pipeline.dataset.input.cells import HEAD_LINES, Table, is_long_sequence
from pipeline.dataset.input.columns import Columns, choose_columns
from pipeline.dataset.input.compression import COMPRESSED_SUFFIXES, decompressed_name, read_chunks
from pipeline.dataset.input.fasta_labels import check_fasta_columns, find_fasta_label
from pipeline.dataset.input.format import Layout, common_layout, split_cells, without_comments
from pipeline.dataset.input.lines import first_lines
from pipeline.dataset.input.stream import RowStream, fasta_files, line_files
from pipeline.dataset.input.table_head import find_delimiter, with_row_names
from pipeline.dataset.input.tables import (
    JSON_SUFFIXES,
    common_types,
    read_table_head,
    saved_dataset_files,
    table_files,
    table_schema,
)
from pipeline.errors import UserError
from pipeline.io.file_names import expect_utf8_name
from pipeline.paths import looked_in, suggest_file

KINDS = {
    **dict.fromkeys((".tsv", ".txt", ".csv"), "text"),
    **dict.fromkeys((".fasta", ".fa", ".fna"), "FASTA"),
    **dict.fromkeys((".parquet", ".arrow", *JSON_SUFFIXES), "table"),
}
"""File extension -> kind of file. The extension of a compression is removed first."""
HEAD_BYTES = 1 << 20
"""Bytes of a text file from which its layout is inferred."""
ENDINGS = (*KINDS, *COMPRESSED_SUFFIXES)
"""Last endings of the names of input files."""
_INPUT_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, KINDS))})({'|'.join(map(re.escape, COMPRESSED_SUFFIXES))})?$")


@dataclass(frozen=True)
class InputColumn:
    """A column of the input. role: `kept` for all but sequences and labels.

    name: as written in the input, column3 for the third one without a name. field: its number, from 1; 0 for the names
    in headers of FASTA. is_text: the cells are text, from which SQL decides the type; False: they have a type.
    """

    name: str
    field: int
    role: Literal["sequence", "label", "kept"]
    is_text: bool


FASTA_COLUMNS = (InputColumn("name", 0, "kept", is_text=True), InputColumn("sequence", 0, "sequence", is_text=True))
"""The columns of FASTA: the first word of each header, and the sequence."""


@dataclass(frozen=True)
class Input:
    """Rows of one layout (None: a table with typed columns). labelled: whether they have labels.

    columns: all columns in order; empty if only sequences are read. label_fields: numbers of the columns of labels, in
    the order in which they are requested.
    """

    files: list[str]
    layout: Layout | None
    labelled: bool
    sequence_column: str | None = None
    expression_column: str | None = None
    name_column: str | None = None
    stream: RowStream | None = None
    columns: tuple[InputColumn, ...] = ()
    label_fields: tuple[int, ...] = ()

    @property
    def kept_columns(self) -> tuple[InputColumn, ...]:
        """Return the columns that are neither sequences nor labels."""
        return tuple(column for column in self.columns if column.role == "kept")

    @property
    def label_columns(self) -> tuple[InputColumn, ...]:
        """Return the columns of labels, in the order in which they are requested."""
        labels = {column.field: column for column in self.columns if column.role == "label"}
        return tuple(labels[field] for field in self.label_fields if field in labels)

    @property
    def column_names(self) -> tuple[str | None, str | None]:
        """Return the columns of sequences and labels, by name or else by number; None if there is no such column."""
        if self.layout is None:
            return self.sequence_column, self.expression_column
        layout = self.layout
        field = layout.expression_field
        if layout.kind == "fasta":
            return None, (f"field {field}" if field else layout.expression_name) if self.labelled else None
        label = layout.expression_name or str(field)
        return layout.sequence_name or str(layout.sequence_field), label if self.labelled and field else None


def find_input(
    names: list[str], columns: Columns | None = None, labelled: bool = True, keep_columns: bool = True
) -> Input:
    """Resolve names and glob patterns to files, and infer their layout.

    labelled: False if labels are not needed; keep_columns: False if only sequences and labels are. Raises UserError for
    a file that is missing, empty, of an unknown kind or unreadable, for files that differ in layout, and for columns
    that do not exist.
    """
    files = resolve_files(names)
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise UserError(f"{', '.join(sorted(kinds))} files together; expected one kind; fix: convert some of them")
    columns = columns or Columns()
    labelled = labelled and not columns.unlabelled
    if kinds == {"table"}:
        return _table_input(files, columns, labelled, keep_columns)
    heads = {file: first_lines(file, read_chunks(file), HEAD_LINES, HEAD_BYTES) for file in files}
    if kinds == {"FASTA"}:
        return _fasta_input(files, heads, columns, labelled, keep_columns)
    tables = {file: without_comments(file, lines, columns) for file, lines in heads.items()}
    bodies = {file: lines for file, (_, lines) in tables.items()}
    layout, labelled = common_layout(bodies, columns, labelled, keep_columns)
    stream = line_files({file: comments + layout.skip_lines for file, (comments, _) in tables.items()})
    layout = replace(layout, comment_lines=sum(lines for lines, _ in tables.values()))
    kept = text_columns(layout, columns.by_name) if keep_columns else ()
    return Input(files, layout, labelled, stream=stream, columns=kept, label_fields=layout.label_fields)


def read_head(names: list[str]) -> Table:
    """Read the first rows of the first of some files, to choose columns by their names.

    Raises UserError for an unreadable file, and for FASTA, which has no columns.
    """
    file = resolve_files(names)[0]
    kind = _kind(file)
    if kind == "table":
        return read_table_head(file, HEAD_LINES)
    if kind == "FASTA":
        raise UserError(f"{file}: FASTA has no columns; expected a table")
    _, lines = without_comments(file, first_lines(file, read_chunks(file), HEAD_LINES, HEAD_BYTES), Columns())
    delimiter = find_delimiter(file, lines)
    rows = [[cell.strip() for cell in split_cells(line, delimiter)] for line in lines]
    header, body = ([], rows) if any(map(is_long_sequence, rows[0])) else (rows[0], rows[1:])
    header = with_row_names(file, header, body)
    return Table(file, header, body, len(header) or len(rows[0]))


def text_columns(layout: Layout, by_name: bool = False) -> tuple[InputColumn, ...]:
    """List the columns of rows of text. by_name: sequences are in files of their own, so all but labels are kept."""
    header = layout.header or ("",) * layout.columns
    roles: dict[int, Literal["sequence", "label"]] = dict.fromkeys(layout.label_fields, "label")
    if not by_name:
        roles[layout.sequence_field] = "sequence"
    return tuple(
        InputColumn(name or f"column{field}", field, roles.get(field, "kept"), is_text=True)
        for field, name in enumerate(header, 1)
    )


def resolve_files(names: list[str]) -> list[str]:
    """Expand glob patterns and saved datasets, and check that each file is named once and can be read."""
    files: dict[tuple[int, int] | Path, str] = {}
    for name in names:
        is_pattern = glob.has_magic(name) and not Path(name).exists()
        matches = sorted(glob.glob(name)) if is_pattern else [name]  # noqa: PTH207 (Path.glob takes no absolute one)
        if not matches:
            raise UserError(f"{name}: no file matches{looked_in(name)}")
        for file in (file for match in matches for file in saved_dataset_files(Path(match)) or [match]):
            expect_utf8_name(file)
            path = Path(file).resolve()
            if not path.exists():
                raise UserError(f"{file}: no such file{looked_in(file)}{suggest_file(Path(file), ENDINGS)}")
            if not path.is_file():
                raise UserError(f"{file}: not a file; {_suggest_files(Path(file))}")
            stat = path.stat()
            if stat.st_size == 0:
                raise UserError(f"{file}: the file is empty")
            identity = (stat.st_dev, stat.st_ino) if stat.st_ino else path  # links to one file are one file
            if identity in files:
                raise UserError(f"{file}: duplicate file; expected each file once")
            files[identity] = file
    return list(files.values())


def _suggest_files(folder: Path) -> str:
    """Suggest the pattern that matches most input files of one ending in or below a folder."""
    files = sorted(path for path in islice(folder.rglob("*"), HEAD_LINES) if path.is_file())
    patterns = Counter(
        f"{shlex.quote(str(path.parent))}/*{match[0]}" for path in files if (match := _INPUT_SUFFIX.search(path.name))
    )
    if not patterns:
        return "the folder holds no input files"
    return f"fix: name the files in it, such as {patterns.most_common(1)[0][0]}"


def _kind(file: str) -> str:
    name = decompressed_name(file)
    kind = KINDS.get(Path(name).suffix)
    if kind is None or (file != name and Path(name).suffix in (".parquet", ".arrow")):
        *suffixes, last = (suffix for suffix in KINDS if suffix not in (".parquet", ".arrow"))
        compressed = ", ".join(COMPRESSED_SUFFIXES)
        expected = f"{', '.join(suffixes)} or {last} (and {compressed}), .parquet or .arrow"
        raise UserError(f"{file}: expected a name ending in {expected}; fix: save it as .tsv, .csv or .parquet")
    return kind


def _fasta_input(
    files: list[str], heads: dict[str, list[str]], columns: Columns, labelled: bool, keep_columns: bool
) -> Input:
    check_fasta_columns(files[0], columns)
    layout = Layout("fasta", expression_field=0)
    if labelled:
        lines = (line for head in heads.values() for line in head)
        key, field, labelled = find_fasta_label(files[0], lines, columns)
        layout = replace(layout, expression_name=key, expression_field=field)
    kept = FASTA_COLUMNS if keep_columns else ()
    return Input(files, layout, labelled, stream=fasta_files(files), columns=kept)


def _table_input(files: list[str], columns: Columns, labelled: bool, keep_columns: bool) -> Input:
    first: list[str] = []
    schemas = []
    for file in files:
        table = read_table_head(file, HEAD_LINES)
        choice = choose_columns(table, columns, labelled)
        fields = choice.sequence, choice.name, *choice.labels
        if unnamed := [field for field in fields if field and not table.name(field)]:
            raise UserError(f"{file}: column {unnamed[0]} has no name; fix: name it in the file")
        selected = [table.name(field) for field in fields]
        first = first or selected
        if selected != first:
            raise UserError(f"{file}: its columns differ from those of {files[0]}; fix: build from one of these files")
        schemas.append(table_schema(file))
    sequence, name, *labels = first
    types = common_types(schemas)
    roles: dict[str, Literal["sequence", "label"]] = dict.fromkeys(labels, "label")
    if not columns.by_name:
        roles[sequence] = "sequence"
    several = labels if len(labels) > 1 else []  # read as text; one label is also kept with its type, for predictions
    are_text = any(decompressed_name(file).endswith(JSON_SUFFIXES) for file in files)
    inputs = tuple(
        InputColumn(column or f"column{field}", field, roles.get(column, "kept"), are_text or column in several)
        for field, column in enumerate(types, 1)
        if keep_columns
    )
    cells = {
        f"cell_{column.field}": (title, pa.string() if column.is_text else types[title])
        for title, column in zip(types, inputs, strict=False)
        if column.role != "sequence"
    }
    expression = labels[0] if labels else None
    stream = table_files(files, (sequence, expression, name or None), cells)
    fields = tuple(list(types).index(label) + 1 for label in labels)
    return Input(files, None, expression is not None, sequence, expression, name or None, stream, inputs, fields)
