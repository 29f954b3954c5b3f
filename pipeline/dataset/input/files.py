"""The input of a build or prediction: its files, their kind and their columns."""

import glob
import re
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pipeline.dataset.input.cells import HEAD_LINES, Table, is_long_sequence
from pipeline.dataset.input.columns import Columns, choose_columns
from pipeline.dataset.input.compression import COMPRESSED_SUFFIXES, decompressed_name, read_chunks
from pipeline.dataset.input.fasta_labels import check_fasta_columns, find_fasta_label
from pipeline.dataset.input.format import Layout, common_layout, split_cells, without_comments
from pipeline.dataset.input.lines import first_lines
from pipeline.dataset.input.stream import RowStream, fasta_files, line_files
from pipeline.dataset.input.table_head import find_delimiter, with_row_names
from pipeline.dataset.input.tables import JSON_SUFFIXES, read_table_head, saved_dataset_files, table_files
from pipeline.errors import UserError
from pipeline.io.file_names import expect_utf8_name

KINDS = {
    **dict.fromkeys((".tsv", ".txt", ".csv"), "text"),
    **dict.fromkeys((".fasta", ".fa", ".fna"), "FASTA"),
    **dict.fromkeys((".parquet", ".arrow", *JSON_SUFFIXES), "table"),
}
"""File extension -> kind of file. The extension of a compression is removed first."""
HEAD_BYTES = 1 << 20
"""Bytes of a text file from which its layout is inferred."""
_INPUT_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, KINDS))})({'|'.join(map(re.escape, COMPRESSED_SUFFIXES))})?$")


@dataclass(frozen=True)
class Input:
    """Rows of one layout (None: a table with typed columns). labelled: whether they have labels."""

    files: list[str]
    layout: Layout | None
    labelled: bool
    sequence_column: str | None = None
    expression_column: str | None = None
    name_column: str | None = None
    stream: RowStream | None = None

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


def find_input(names: list[str], columns: Columns | None = None, labelled: bool = True) -> Input:
    """Resolve names and glob patterns to files, and infer their layout.

    labelled: False if labels are not needed. Raises UserError for a file that is missing, empty, of an unknown kind or
    unreadable, for files that differ in layout, and for columns that do not exist.
    """
    files = _resolve(names)
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise UserError(f"{', '.join(sorted(kinds))} files together; expected one kind; fix: convert some of them")
    columns = columns or Columns()
    labelled = labelled and not columns.unlabelled
    if kinds == {"table"}:
        return _table_input(files, columns, labelled)
    heads = {file: first_lines(file, read_chunks(file), HEAD_LINES, HEAD_BYTES) for file in files}
    if kinds == {"FASTA"}:
        return _fasta_input(files, heads, columns, labelled)
    tables = {file: without_comments(file, lines, columns) for file, lines in heads.items()}
    layout, labelled = common_layout({file: lines for file, (_, lines) in tables.items()}, columns, labelled)
    stream = line_files({file: comments + layout.skip_lines for file, (comments, _) in tables.items()})
    layout = replace(layout, comment_lines=sum(lines for lines, _ in tables.values()))
    return Input(files, layout, labelled, stream=stream)


def read_head(names: list[str]) -> Table:
    """Read the first rows of the first of some files, to choose columns by their names.

    Raises UserError for an unreadable file, and for FASTA, which has no columns.
    """
    file = _resolve(names)[0]
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


def _resolve(names: list[str]) -> list[str]:
    """Expand glob patterns and saved datasets, and check that each file is named once and can be read."""
    files: dict[tuple[int, int] | Path, str] = {}
    for name in names:
        is_pattern = glob.has_magic(name) and not Path(name).exists()
        matches = sorted(glob.glob(name)) if is_pattern else [name]  # noqa: PTH207 (Path.glob takes no absolute one)
        if not matches:
            raise UserError(f"{name}: no file matches")
        for file in (file for match in matches for file in saved_dataset_files(Path(match)) or [match]):
            expect_utf8_name(file)
            path = Path(file).resolve()
            if not path.exists():
                raise UserError(f"{file}: no such file")
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


def _fasta_input(files: list[str], heads: dict[str, list[str]], columns: Columns, labelled: bool) -> Input:
    check_fasta_columns(files[0], columns)
    layout = Layout("fasta", expression_field=0)
    if labelled:
        lines = (line for head in heads.values() for line in head)
        key, field, labelled = find_fasta_label(files[0], lines, columns)
        layout = replace(layout, expression_name=key, expression_field=field)
    return Input(files, layout, labelled, stream=fasta_files(files))


def _table_input(files: list[str], columns: Columns, labelled: bool) -> Input:
    first: list[str] = []
    for file in files:
        table = read_table_head(file, HEAD_LINES)
        choice = choose_columns(table, columns, labelled)
        fields = choice.sequence, choice.expression, choice.name
        if unnamed := [field for field in fields if field and not table.name(field)]:
            raise UserError(f"{file}: column {unnamed[0]} has no name; fix: name it in the file")
        selected = [table.name(field) for field in fields]
        first = first or selected
        if selected != first:
            raise UserError(f"{file}: its columns differ from those of {files[0]}; fix: build from one of these files")
    sequence, expression, name = first[0], first[1] or None, first[2] or None
    stream = table_files(files, (sequence, expression, name))
    return Input(files, None, expression is not None, sequence, expression, name, stream)
