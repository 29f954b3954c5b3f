"""Read the promoters to predict, from files or standard input, in their order and in parts of bounded size."""

import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import BinaryIO

import duckdb
import pyarrow as pa

from model.prediction.validate import VALIDATED
from pipeline.config.schema import Assay
from pipeline.dataset.database import explain
from pipeline.dataset.input.files import Input, find_input
from pipeline.dataset.input.format import Columns, Layout, layout_of_text
from pipeline.dataset.input.stream import fasta_input, line_input
from pipeline.dataset.input.view import define_input, input_error
from pipeline.errors import UserError
from pipeline.io.arrow import rebatch

STANDARD_INPUT = "-"
READ_ROWS = 4096
"""Rows per batch of DuckDB's reader: memory does not grow with the input."""
HEAD_BYTES = 1 << 16
"""Bytes of standard input that its layout is found by."""


@dataclass(frozen=True)
class Part:
    """Successive rows of the input.

    first: number of the first row, from 0. table: sequence (as it came), repaired, problem (null for a row that can be
    predicted), and name where the input has names.
    """

    first: int
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def usable(self) -> pa.Array:
        """The repaired sequences of the rows that can be predicted."""
        return self.table["repaired"].filter(self.table["problem"].is_null()).combine_chunks()


def find_prediction_input(names: list[str], columns: Columns | None, header_names: bool = False) -> Input:
    """Find files by names and glob patterns, or standard input by "-", and their layout.

    header_names: also read the first word of each FASTA header. Raises UserError for an input that cannot be read, and
    for names asked of a format that has none.
    """
    if names == [STANDARD_INPUT]:
        return _standard_input(sys.stdin.buffer, columns, header_names)
    if STANDARD_INPUT in names:
        raise UserError("-: standard input together with files; expected - alone, or files only")
    found = find_input(names, columns, labelled=False)
    return replace(found, layout=_with_header_names(found.layout, columns, header_names))


def _with_header_names(layout: Layout | None, columns: Columns | None, header_names: bool) -> Layout | None:
    """Add the names of FASTA headers to a layout, if asked for."""
    if layout is not None and layout.kind == "fasta":
        if columns is not None and columns.name is not None:
            raise UserError(
                f"--name-column {columns.name}: FASTA has no columns; fix: --names, for the names in its headers"
            )
        return replace(layout, name_field=int(header_names))
    if header_names:
        raise UserError("--names: reads FASTA headers, got a table; fix: --name-column NAME, for a column of names")
    return layout


def _standard_input(stream: BinaryIO, columns: Columns | None, header_names: bool) -> Input:
    head = b""
    while len(head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(head))):
        head += more
    name = "standard input"
    layout = _with_header_names(layout_of_text(name, head, columns), columns, header_names)
    assert layout is not None
    chunks = _chunks(head, stream)
    is_fasta = layout.kind == "fasta"
    rows = fasta_input(name, chunks) if is_fasta else line_input(name, chunks, layout.skip_lines)
    return Input([], layout, labelled=False, stream=rows)


def _chunks(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield head
    while chunk := stream.read(HEAD_BYTES):
        yield chunk


def read_parts(source: Input, assay: Assay, rows: int) -> Generator[Part]:
    """Read and validate the input in parts of `rows` rows, the last one shorter.

    The parts are a function of the input alone, whoever reads it. Raises UserError where the input is unreadable.
    """
    with duckdb.connect() as connection, closing(_tables(connection, source, assay, rows)) as tables:
        first = 0
        for table in tables:
            yield Part(first, table)
            first += table.num_rows


def _tables(connection: duckdb.DuckDBPyConnection, source: Input, assay: Assay, rows: int) -> Generator[pa.Table]:
    named = source.name_column is not None or (source.layout is not None and source.layout.name_field > 0)
    name = ", coalesce(name, '') as name" if named else ""
    try:
        define_input(connection, assay, source)
        reader = connection.sql(f"select coalesce(sequence, '') as sequence, {VALIDATED}{name} from input")
        yield from rebatch(reader.to_arrow_reader(READ_ROWS), rows)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise input_error(source, error) from None


def count_rows(source: Input, assay: Assay) -> int:
    """Count the rows of the input; 0 for a stream, which can be read only once."""
    if source.stream is not None:
        return 0
    with duckdb.connect() as connection:
        try:
            define_input(connection, assay, source)
            ((rows,),) = connection.execute("select count(*) from input").fetchall()
        except duckdb.Error as error:
            raise explain(error) from None
    return int(rows)
