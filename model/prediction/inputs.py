"""Promoters to be predicted, as they stand in files or come on standard input: in their order, part by part."""

import sys
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import BinaryIO

import duckdb
import pyarrow as pa

from pipeline.config.schema import Assay
from pipeline.dataset.database import explain
from pipeline.dataset.input_format import Columns, Input, Layout, find_input, layout_of_text
from pipeline.dataset.input_stream import fasta_lines, piped, sequence_lines
from pipeline.dataset.input_view import define_input
from pipeline.errors import UserError
from pipeline.shards.writer import in_parts

STANDARD_INPUT = "-"
READ_ROWS = 4096
"""Rows that DuckDB hands over at once; what is held in memory does not grow with the input."""
HEAD_BYTES = 1 << 16
"""What is looked at of standard input, to see how its rows are written."""
A_SEQUENCE_A_LINE = Layout("text", columns=1, expression_field=0)
NAME_AND_SEQUENCE = Layout("text", columns=2, sequence_field=2, expression_field=0, name_field=1)

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


@dataclass(frozen=True)
class Given:
    """Where the rows come from. chunks: what is to be read in place of files, for standard input and FASTA."""

    input: Input
    chunks: Iterator[bytes] | None

    @property
    def files(self) -> list[str]:
        """The files read; none for standard input."""
        return self.input.files


def find_rows(names: list[str], columns: Columns | None, header_names: bool = False) -> Given:
    """Files, patterns, or - for standard input. header_names: of FASTA entries the first word of the header, too.

    Raises UserError for what cannot be read, and for names asked for otherwise than they stand.
    """
    if names == [STANDARD_INPUT]:
        return _standard_input(sys.stdin.buffer, columns, header_names)
    if STANDARD_INPUT in names:
        raise UserError("- stands for standard input and is named alone, without files")
    found = find_input(names, columns, labelled=False)
    if found.layout is not None and found.layout.kind == "fasta":
        return Given(replace(found, layout=_fasta(columns, header_names)), fasta_lines(found.files, header_names))
    _check_no_header_names(header_names)
    return Given(found, None)


def _fasta(columns: Columns | None, header_names: bool) -> Layout:
    """Of the lines that stand for FASTA entries."""
    if columns is not None and columns.name is not None:
        raise UserError(f"--name-column {columns.name}: FASTA has no columns; for the names in its headers: --names")
    return NAME_AND_SEQUENCE if header_names else A_SEQUENCE_A_LINE


def _check_no_header_names(header_names: bool) -> None:
    if header_names:
        raise UserError("--names takes the names of FASTA headers; of a table name their column: --name-column NAME")


def _standard_input(stream: BinaryIO, columns: Columns | None, header_names: bool) -> Given:
    head = b""
    while len(head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(head))):
        head += more
    layout = layout_of_text("standard input", head, columns)
    if layout.kind == "fasta":
        lines = sequence_lines(_lines(head, stream), header_names)
        return Given(Input([], _fasta(columns, header_names), labelled=False), lines)
    _check_no_header_names(header_names)
    return Given(Input([], layout, labelled=False), _chunks(head, stream))


def _chunks(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield head
    while chunk := stream.read(HEAD_BYTES):
        yield chunk


def _lines(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    whole, _, begun = head.rpartition(b"\n")
    yield from whole.split(b"\n")
    yield begun + stream.readline()
    yield from stream


def read_parts(given: Given, assay: Assay, rows: int) -> Generator[Part]:
    """The input in parts of so many rows, the last one shorter; the same parts each time.

    Raises UserError where the input turns out to be unreadable.
    """
    with nullcontext() if given.chunks is None else piped(given.chunks) as pipe:
        source = given.input if pipe is None else replace(given.input, files=[pipe])
        with duckdb.connect() as connection, closing(_tables(connection, source, assay, rows)) as tables:
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
    except duckdb.Error as error:
        raise explain(error) from None


def count_rows(given: Given, assay: Assay) -> int:
    """Rows of the input; 0 where they cannot be counted without being read up."""
    if given.chunks is not None:
        return 0
    with duckdb.connect() as connection:
        try:
            define_input(connection, assay, given.input)
            ((rows,),) = connection.execute("select count(*) from input").fetchall()
        except duckdb.Error as error:
            raise explain(error) from None
    return int(rows)
