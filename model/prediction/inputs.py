"""Read the promoters to predict, from files or standard input, in their order and in parts of bounded size."""

import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import BinaryIO

import duckdb
import pyarrow as pa

from model.prediction.validate import VALIDATED
from pipeline.config.schema import Assay
from pipeline.dataset.database import explain
from pipeline.dataset.input_format import Columns, Input, Layout, find_input, layout_of_text
from pipeline.dataset.input_stream import fasta_lines, piped, sequence_lines
from pipeline.dataset.input_view import define_input
from pipeline.errors import UserError
from pipeline.shards.writer import in_parts

STANDARD_INPUT = "-"
READ_ROWS = 4096
"""Rows per batch of DuckDB's reader: memory does not grow with the input."""
HEAD_BYTES = 1 << 16
"""Bytes of standard input that its layout is found by."""
FASTA_LINES = Layout("text", columns=1, expression_field=0)
"""FASTA entries as input_stream turns them into lines: one sequence per line."""
NAMED_FASTA_LINES = Layout("text", columns=2, sequence_field=2, expression_field=0, name_field=1)


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


@dataclass(frozen=True)
class PredictionInput:
    """Where the rows come from: files, or a stream of bytes (standard input, FASTA entries as lines)."""

    input: Input
    stream: Iterator[bytes] | None = None

    @property
    def has_names(self) -> bool:
        """Whether each row has a name beside its sequence."""
        layout = self.input.layout
        return self.input.name_column is not None or (layout is not None and layout.name_field > 0)

    @contextmanager
    def readable(self) -> Iterator[Input]:
        """Yield the input as files that DuckDB reads; a stream becomes a pipe."""
        if self.stream is None:
            yield self.input
        else:
            with piped(self.stream) as pipe:
                yield replace(self.input, files=[pipe])


def find_prediction_input(names: list[str], columns: Columns | None, header_names: bool = False) -> PredictionInput:
    """Find files by names and glob patterns, or standard input by "-", and their layout.

    header_names: also read the first word of each FASTA header. Raises UserError for an input that cannot be read, and
    for names asked of a format that has none.
    """
    if names == [STANDARD_INPUT]:
        return _standard_input(sys.stdin.buffer, columns, header_names)
    if STANDARD_INPUT in names:
        raise UserError("-: standard input together with files; expected - alone, or files only")
    found = find_input(names, columns, labelled=False)
    if found.layout is not None and found.layout.kind == "fasta":
        layout = _fasta_layout(columns, header_names)
        return PredictionInput(replace(found, layout=layout), fasta_lines(found.files, header_names))
    _check_no_header_names(header_names)
    return PredictionInput(found)


def _standard_input(stream: BinaryIO, columns: Columns | None, header_names: bool) -> PredictionInput:
    head = b""
    while len(head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(head))):
        head += more
    layout = layout_of_text("standard input", head, columns)
    if layout.kind == "fasta":
        lines = sequence_lines(_lines(head, stream), header_names)
        return PredictionInput(Input([], _fasta_layout(columns, header_names), labelled=False), lines)
    _check_no_header_names(header_names)
    return PredictionInput(Input([], layout, labelled=False), _chunks(head, stream))


def _fasta_layout(columns: Columns | None, header_names: bool) -> Layout:
    if columns is not None and columns.name is not None:
        raise UserError(
            f"--name-column {columns.name}: FASTA has no columns; fix: --names, for the names in its headers"
        )
    return NAMED_FASTA_LINES if header_names else FASTA_LINES


def _check_no_header_names(header_names: bool) -> None:
    if header_names:
        raise UserError("--names: reads FASTA headers, got a table; fix: --name-column NAME, for a column of names")


def _chunks(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield head
    while chunk := stream.read(HEAD_BYTES):
        yield chunk


def _lines(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    complete, _, begun = head.rpartition(b"\n")
    yield from complete.split(b"\n")
    yield begun + stream.readline()
    yield from stream


def read_parts(source: PredictionInput, assay: Assay, rows: int) -> Generator[Part]:
    """Read and validate the input in parts of `rows` rows, the last one shorter.

    The parts are a function of the input alone, whoever reads it. Raises UserError where the input is unreadable.
    """
    columns = ["coalesce(sequence, '') as sequence", VALIDATED]
    if source.has_names:
        columns.append("coalesce(name, '') as name")
    first = 0
    with (
        source.readable() as files,
        duckdb.connect() as connection,
        closing(_tables(connection, files, assay, f"select {', '.join(columns)} from input", rows)) as tables,
    ):
        for table in tables:
            yield Part(first, table)
            first += table.num_rows


def _tables(
    connection: duckdb.DuckDBPyConnection, files: Input, assay: Assay, select: str, rows: int
) -> Generator[pa.Table]:
    try:
        define_input(connection, assay, files)
        yield from in_parts(connection.sql(select).to_arrow_reader(READ_ROWS), rows)
    except duckdb.Error as error:
        raise explain(error) from None


def count_rows(source: PredictionInput, assay: Assay) -> int:
    """Count the rows of the input; 0 for a stream, which can be read only once."""
    if source.stream is not None:
        return 0
    with duckdb.connect() as connection:
        try:
            define_input(connection, assay, source.input)
            ((rows,),) = connection.execute("select count(*) from input").fetchall()
        except duckdb.Error as error:
            raise explain(error) from None
    return int(rows)
