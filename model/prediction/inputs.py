"""Read the promoters to predict, from files or standard input, in input order and in parts of bounded size."""

import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import BinaryIO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.prediction.row_writers import rename_clashes
from model.prediction.validate import VALIDATED
from pipeline.config.schema import Assay
from pipeline.dataset.input.columns import EXPRESSION_NAMES, Columns
from pipeline.dataset.input.files import FASTA_COLUMNS, Input, InputColumn, find_input, text_columns
from pipeline.dataset.input.format import layout_of_text
from pipeline.dataset.input.stream import fasta_input, line_input
from pipeline.dataset.input.view import define_input, input_error
from pipeline.dataset.rows.columns import define_raw_input
from pipeline.errors import UserError
from pipeline.io.arrow import rebatch

STANDARD_INPUT = "-"
READ_ROWS = 4096
"""Rows per batch of DuckDB's reader: memory does not grow with the input."""
HEAD_BYTES = 1 << 16
"""Bytes of standard input from which its layout is inferred."""


@dataclass(frozen=True)
class Part:
    """Successive rows of the input, in a table.

    first: number of the first row, from 0; table: columns name (where the input has names), sequence (as read),
    repaired, and problem (null for a valid row). label: float64 (rows,), NaN where there is none; None if the input has
    no clear column of labels. cells: all columns of the input, if they are kept. predictions: columns of predictions in
    place of repaired, one per label.
    """

    first: int
    table: pa.Table
    label: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    cells: pa.Table | None = None
    predictions: int = 1

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def valid_sequences(self) -> pa.Array:
        """The repaired sequences of the valid rows."""
        return self.table["repaired"].filter(self.table["problem"].is_null()).combine_chunks()

    def describe_valid(self, place: int) -> str:
        """Name the row of a valid sequence, such as row 7 (NAME). place: among the valid sequences, from 0."""
        row = int(np.flatnonzero(self.table["problem"].is_null().to_numpy())[place])
        name = self.table["name"][row].as_py() if "name" in self.table.column_names else ""
        return name_row(self.first + row + 1, name)

    def with_predictions(self, values: npt.NDArray[np.float32], labels: Sequence[str] = ()) -> "Part":
        """Replace column repaired by prediction, or by prediction_NAME per label: float32, null for an invalid row.

        values: of the valid rows, (rows,) or (rows, labels); labels: names of several, empty for one.
        """
        prediction = np.full((len(self), len(labels) or 1), np.nan, np.float32)
        prediction[self.table["problem"].is_null().to_numpy()] = values.reshape(-1, len(labels) or 1)
        place, table = self.table.column_names.index("repaired"), self.table.drop_columns("repaired")
        for number, name in enumerate([f"prediction_{label}" for label in labels] or ["prediction"]):
            table = table.add_column(place + number, name, pa.array(prediction[:, number], from_pandas=True))
        return Part(self.first, table, cells=self.cells, predictions=len(labels) or 1)

    @property
    def output(self) -> pa.Table:
        """The columns to write: name, if any, sequence, predictions and problem; or all of the input in place of these.

        A column of the input with the name of a later one, in any case, gets NAME_input.
        """
        if self.cells is None:
            return self.table
        results = self.table.select(range(self.table.column_names.index("sequence") + 1, self.table.num_columns))
        names = rename_clashes(self.cells.column_names, results.column_names)
        return pa.Table.from_arrays([*self.cells.columns, *results.columns], names=[*names, *results.column_names])


def name_row(number: int, name: str) -> str:
    """Name a row, such as row 7 (NAME). number: from 1; name: or an empty text."""
    return f"row {number:,}{f' ({name})' if name else ''}"


def find_prediction_input(
    names: list[str], columns: Columns | None, header_names: bool = False, keep_columns: bool = False
) -> Input:
    """Resolve file names and glob patterns, or standard input by "-", and infer the layout.

    header_names: also read the first word of each FASTA header; keep_columns: read all columns. Raises UserError for an
    unreadable input, and for names requested of a format that has none.
    """
    if names == [STANDARD_INPUT]:
        source = _standard_input(sys.stdin.buffer, columns, keep_columns)
    elif STANDARD_INPUT in names:
        raise UserError("-: standard input together with files; expected - alone, or files only")
    else:
        source = _find_files(names, columns, keep_columns)
    if source.layout is None or source.layout.kind != "fasta":
        if header_names:
            raise UserError("--names: reads FASTA headers, got a table; fix: --name-column NAME, for a column of names")
        return source
    if columns is not None and columns.name is not None:
        raise UserError(
            f"--name-column {columns.name}: FASTA has no columns; fix: omit it; predict has --names for headers"
        )
    return replace(source, layout=replace(source.layout, name_field=int(header_names)))


def _find_files(names: list[str], columns: Columns | None, keep_columns: bool) -> Input:
    """Resolve files, with their labels if one column is clearly that of the labels."""
    with suppress(UserError):  # labels that are ambiguous or invalid do not matter
        source = find_input(names, columns, labelled=True, keep_columns=keep_columns)
        if source.labelled and _has_clear_label(source):
            return source
    return find_input(names, columns, labelled=False, keep_columns=keep_columns)


def _has_clear_label(source: Input) -> bool:
    """Whether the label has a name that labels have, or is the second of two columns without a header line."""
    label, layout = source.column_names[1], source.layout
    is_plain = layout is not None and layout.kind == "text" and layout.columns == 2 and not layout.skip_lines
    return is_plain or (label or "").lower() in EXPRESSION_NAMES


def _standard_input(stream: BinaryIO, columns: Columns | None, keep_columns: bool) -> Input:
    head = b""
    while len(head) < HEAD_BYTES and (chunk := stream.read(HEAD_BYTES - len(head))):
        head += chunk
    name = "standard input"
    layout = layout_of_text(name, head, columns)
    chunks = chain([head], iter(lambda: stream.read(HEAD_BYTES), b""))
    if layout.kind == "fasta":
        names = FASTA_COLUMNS if keep_columns else ()
        return Input([], layout, labelled=False, stream=fasta_input(name, chunks), columns=names)
    rows = line_input(name, chunks, layout.comment_lines + layout.skip_lines)
    return Input([], layout, labelled=False, stream=rows, columns=text_columns(layout) if keep_columns else ())


def read_parts(source: Input, assay: Assay, rows: int) -> Generator[Part]:
    """Read and validate the input in parts of `rows` rows, the last one shorter.

    The parts depend on the input alone. Raises UserError for an unreadable input.
    """
    named = source.name_column is not None or (source.layout is not None and source.layout.name_field > 0)
    name = "coalesce(name, '') as name, " if named else ""
    label = ", try_cast(expression as double) as label_of_row" if source.labelled else ""
    names = [column.name for column in source.columns]
    cells = "".join(f", {_cell(column)} as cell_of_input_{place}" for place, column in enumerate(source.columns))
    view = "raw_input" if names else "input"
    query = f"select {name}coalesce(sequence, '') as sequence, {VALIDATED}{label}{cells} from {view}"
    first = 0
    with _open_input(source, assay) as connection:
        if names:
            define_raw_input(connection, source, [column.field for column in source.columns if column.field])
        for table in rebatch(connection.sql(query).to_arrow_reader(READ_ROWS), rows):
            own = table.num_columns - len(names)
            kept = table.select(range(own, table.num_columns)).rename_columns(names) if names else None
            if label:
                yield Part(first, table.select(range(own - 1)), table["label_of_row"].to_numpy(), kept)
            else:
                yield Part(first, table.select(range(own)), cells=kept)
            first += table.num_rows


def _cell(column: InputColumn) -> str:
    """Return the SQL of a cell of the input in view `raw_input`, as it is written there."""
    if column.role == "sequence":
        return "sequence"
    if not column.field:
        return "name"
    return f"coalesce(cell_{column.field}, '')" if column.is_text else f"cell_{column.field}"


@contextmanager
def _open_input(source: Input, assay: Assay) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with view `input`; report errors of DuckDB and of the input's stream."""
    with duckdb.connect() as connection:
        try:
            define_input(connection, assay, source)
            yield connection
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise input_error(source, error) from None
