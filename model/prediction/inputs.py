"""Promoters to be predicted, as they stand in files or come on standard input: in their order, part by part."""

import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import BinaryIO

import duckdb
import pyarrow as pa

from pipeline.config.schema import Assay
from pipeline.dataset.database import explain
from pipeline.dataset.input_files import Input, find_input
from pipeline.dataset.input_format import Columns, Layout, layout_of_text
from pipeline.dataset.input_stream import fasta_input, line_input
from pipeline.dataset.input_view import define_input, input_error
from pipeline.errors import UserError
from pipeline.shards.writer import in_parts

STANDARD_INPUT = "-"
READ_ROWS = 4096
"""Rows that DuckDB hands over at once; what is held in memory does not grow with the input."""
HEAD_BYTES = 1 << 16
"""What is looked at of standard input, to see how its rows are written."""
NAME = ", coalesce(name, '') as name"


@dataclass(frozen=True)
class Part:
    """Some rows of the input. first: number of the first one, from 0; table: sequence as it came, repaired,
    problem (null for a promoter of the assay), and name where the input has names."""

    first: int
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def usable(self) -> pa.Array:
        """The sequences that a model can be given."""
        return self.table["repaired"].filter(self.table["problem"].is_null()).combine_chunks()


def find_rows(names: list[str], columns: Columns | None, header_names: bool = False) -> Input:
    """Files, patterns, or - for standard input. header_names: of FASTA entries the first word of the header, too.

    Raises UserError for what cannot be read, and for names asked for otherwise than they stand.
    """
    if names == [STANDARD_INPUT]:
        return _standard_input(sys.stdin.buffer, columns, header_names)
    if STANDARD_INPUT in names:
        raise UserError("- stands for standard input and is named alone, without files")
    found = find_input(names, columns, labelled=False)
    return replace(found, layout=_with_names(found.layout, columns, header_names))


def _with_names(layout: Layout | None, columns: Columns | None, header_names: bool) -> Layout | None:
    """The layout with the names of FASTA headers, if they are asked for."""
    if layout is not None and layout.kind == "fasta":
        if columns is not None and columns.name is not None:
            raise UserError(
                f"--name-column {columns.name}: FASTA has no columns; for the names in its headers: --names"
            )
        return replace(layout, name_field=int(header_names))
    if header_names:
        raise UserError("--names takes the names of FASTA headers; of a table name their column: --name-column NAME")
    return layout


def _standard_input(stream: BinaryIO, columns: Columns | None, header_names: bool) -> Input:
    head = b""
    while len(head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(head))):
        head += more
    name = "standard input"
    layout = _with_names(layout_of_text(name, head, columns), columns, header_names)
    assert layout is not None
    chunks = _chunks(head, stream)
    is_fasta = layout.kind == "fasta"
    rows = fasta_input(name, chunks) if is_fasta else line_input(name, chunks, layout.skip_lines)
    return Input([], layout, labelled=False, stream=rows)


def _chunks(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield head
    while chunk := stream.read(HEAD_BYTES):
        yield chunk


def read_parts(given: Input, assay: Assay, rows: int) -> Generator[Part]:
    """The input in parts of so many rows, the last one shorter; the same parts each time.

    Raises UserError where the input turns out to be unreadable.
    """
    with duckdb.connect() as connection, closing(_tables(connection, given, assay, rows)) as tables:
        first = 0
        for table in tables:
            yield Part(first, table)
            first += table.num_rows


def _tables(connection: duckdb.DuckDBPyConnection, source: Input, assay: Assay, rows: int) -> Generator[pa.Table]:
    try:
        define_input(connection, assay, source)
        named = source.name_column is not None or (source.layout is not None and source.layout.name_field > 0)
        reader = connection.sql(
            "select coalesce(sequence, '') as sequence, repaired(sequence) as repaired, "
            f"sequence_problem(repaired(sequence)) as problem{NAME if named else ''} from input"
        ).to_arrow_reader(READ_ROWS)
        yield from in_parts(reader, rows)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise input_error(source, error) from None


def count_rows(given: Input, assay: Assay) -> int:
    """Rows of the input; 0 where they cannot be counted without being read up."""
    if given.stream is not None:
        return 0
    with duckdb.connect() as connection:
        try:
            define_input(connection, assay, given)
            ((rows,),) = connection.execute("select count(*) from input").fetchall()
        except duckdb.Error as error:
            raise explain(error) from None
    return int(rows)
