"""Writers of tables with predictions: columns of the input, then the predictions, with a header line."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.io.arrow import rebatch

GROUP_ROWS = 65_536
"""Rows per row group of a Parquet file."""
BUFFER_ROWS = 65_536
"""Most rows without a prediction that are buffered before a stream is written: if no row is valid, it stays empty."""
LINE_BREAKERS = re.compile(r"[\t\n\r]")
"""Characters of a cell that would break a line of a .tsv file: each is written as a space."""
INPUT_SUFFIX = "_input"
"""Added to the name of an input column that a prediction also has."""

Rows = TypeVar("Rows", bound=Sized)
RowWriter = Callable[[BinaryIO, Iterator[pa.Table], int], None]
"""Writes tables to an open binary file as they arrive.

A table has the columns of the input, then predictions (float32 or null), then problem (text or null). The number is
that of the columns of predictions.
"""


def as_text(value: float | None) -> str:
    """Format a prediction for text output with six significant digits; nan for None.

    float32 holds seven. The last one or two depend on the processor, the number of threads and the other rows of the
    batch. Parquet stores the float32 unchanged.
    """
    return "nan" if value is None else f"{value:.6g}"


def buffer_until_valid(parts: Iterator[Rows], problems_of: Callable[[Rows], pa.ChunkedArray]) -> Iterator[Rows]:
    """Buffer parts until a row has no problem, because output to a stream cannot be undone.

    problems_of: returns the column of problems of a part, null for a valid row.
    """
    buffer: list[Rows] = []
    for part in parts:
        buffer.append(part)
        if problems_of(part).null_count or sum(map(len, buffer)) > BUFFER_ROWS:
            yield from buffer
            buffer.clear()
            yield from parts


def rename_clashes(names: Sequence[str], added: Sequence[str]) -> list[str]:
    """Rename the columns of an input that have the name of an added column, in any case."""
    taken = {name.casefold() for name in added}
    return [f"{name}{INPUT_SUFFIX}" if name.casefold() in taken else name for name in names]


def write_tsv(file: BinaryIO, tables: Iterator[pa.Table], predictions: int) -> None:
    """Write tab-separated lines with a header line, without the column problem."""
    for names, rows in _text_rows(tables, predictions):
        lines = ("\t".join(LINE_BREAKERS.sub(" ", cell) for cell in cells) for cells in [*names, *rows])
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()  # so that the reader of a pipe gets each part at once


def write_csv(file: BinaryIO, tables: Iterator[pa.Table], predictions: int) -> None:
    """Write CSV with a header line, without the column problem."""
    for names, rows in _text_rows(tables, predictions):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*names, *rows])
        file.write(text.getvalue().encode())


def write_parquet(file: BinaryIO, tables: Iterator[pa.Table], predictions: int) -> None:
    """Write Parquet with all columns; those of a typed input keep their types."""
    del predictions
    writer = None
    try:
        for group in rebatch((batch for table in tables for batch in table.to_batches()), GROUP_ROWS):
            writer = writer or pq.ParquetWriter(file, group.schema, compression="zstd")
            writer.write_table(group, GROUP_ROWS)
    finally:
        if writer is not None:
            writer.close()


ROW_WRITERS: dict[str, RowWriter] = {
    ".tsv": write_tsv,
    ".txt": write_tsv,
    ".csv": write_csv,
    ".parquet": write_parquet,
}
"""Suffix of the output -> its writer."""


def _text_rows(
    tables: Iterator[pa.Table], predictions: int
) -> Iterator[tuple[list[list[str]], Iterator[tuple[str, ...]]]]:
    """Yield the cells of each table as text, and before those of the first table the names of its columns."""
    names: list[list[str]] | None = None
    for table in tables:
        names = [table.column_names[:-1]] if names is None else []
        yield names, text_cells(table, predictions)


def text_cells(table: pa.Table, predictions: int) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each row as text, up to the last prediction. predictions: columns of these."""
    *columns, _ = (column.to_pylist() for column in table.columns)
    texts, numbers = columns[:-predictions], columns[-predictions:]
    return zip(*(map(_cell, cells) for cells in texts), *(map(as_text, cells) for cells in numbers), strict=True)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
