"""Read all columns of a table in row order: text as text, columns of Parquet and Arrow with their types."""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.schema import Assay
from pipeline.dataset.input.cells import Table, is_number
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import Input, find_input
from pipeline.dataset.input.tables import table_batches
from pipeline.dataset.input.view import define_input, input_error
from pipeline.errors import UserError

READ_ROWS = 16_384
"""Rows per batch: memory does not grow with the input, and the rules are planned once per batch."""
PROBLEM = "problem"
"""Last column of a batch: why a line does not have the columns of the table; else null."""
LINE_CELLS = """
    select coalesce(
        if(
            getvariable('quoted') or contains(text, '"'),
            list_transform(quoted_fields(text, getvariable('delimiter')), lambda field: unquoted(field)),
            string_split(text, getvariable('delimiter'))
        ),
        ['']
    ) as cells, fields
    from input
"""
WRONG_FIELDS = "if(fields < 0, 'quotes', if(fields <> getvariable('columns'), 'columns', null))"
"""SQL: the reason code of a line with quotes inside a field, or with another number of fields."""


@dataclass(frozen=True)
class TableInput:
    """Files of one table. names: of its columns in order, as written; `column3` for the third one without a name."""

    source: Input
    names: list[str]


def find_table(names: list[str], head: Table, sequence: int) -> TableInput:
    """Resolve file names and glob patterns to the files of one table.

    head: of the first file; sequence: number of a column of sequences, from 1. Raises UserError for unreadable files,
    and for files that differ in layout.
    """
    source = find_input(names, Columns(head.option(sequence)), labelled=False, keep_columns=False)
    return TableInput(source, [head.name(field) or f"column{field}" for field in head.fields])


def read_batches(table: TableInput, assay: Assay) -> Iterator[pa.RecordBatch]:
    """Read the rows in batches: all columns, then PROBLEM. Raises UserError for an unreadable input."""
    return _text_batches(table, assay) if table.source.layout else _typed_batches(table)


def _text_batches(table: TableInput, assay: Assay) -> Iterator[pa.RecordBatch]:
    cells = ", ".join(f"coalesce(cells[{number}], '')" for number, _ in enumerate(table.names, 1))
    query = f"select {cells}, reject_reason({WRONG_FIELDS}, fields) from ({LINE_CELLS})"
    with duckdb.connect() as connection:
        try:
            define_input(connection, assay, table.source)
            for batch in connection.sql(query).to_arrow_reader(READ_ROWS):
                yield batch.rename_columns([*table.names, PROBLEM])
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise input_error(table.source, error) from None


def _typed_batches(table: TableInput) -> Iterator[pa.RecordBatch]:
    schema: pa.Schema | None = None
    for file in table.source.files:
        try:
            for batch in table_batches(file, table.names):
                rows = batch.select(table.names)
                schema = schema or rows.schema
                if rows.schema.remove_metadata() != schema.remove_metadata():
                    raise UserError(f"{file}: its columns differ in type from those of {table.source.files[0]}")
                for start in range(0, len(rows), READ_ROWS):
                    part = rows.slice(start, READ_ROWS)
                    yield part.append_column(PROBLEM, pa.nulls(len(part), pa.string()))
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file}: cannot be read, corrupt or truncated: {error}; fix: copy it again") from None


def as_texts(column: pa.Array) -> list[str]:
    """Convert the cells of a column to text, without white space around it; an empty text for null."""
    try:
        cells = column.cast(pa.string()).to_pylist()
    except pa.ArrowNotImplementedError:
        cells = [None if cell is None else str(cell) for cell in column.to_pylist()]
    return ["" if cell is None else cell.strip() for cell in cells]


def read_numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Read a column as numbers, float64 (rows,); NaN for a cell that holds none."""
    cells = [cell for chunk in column.chunks for cell in as_texts(chunk)]
    return np.array([float(cell) if is_number(cell) else np.nan for cell in cells], np.float64)
