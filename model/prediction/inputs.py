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

from model.prediction.validate import VALIDATED
from pipeline.config.schema import Assay
from pipeline.dataset.input.columns import EXPRESSION_NAMES, Columns
from pipeline.dataset.input.files import Input, find_input
from pipeline.dataset.input.format import layout_of_text
from pipeline.dataset.input.stream import fasta_input, line_input
from pipeline.dataset.input.view import define_input, input_error
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
    no clear column of labels.
    """

    first: int
    table: pa.Table
    label: npt.NDArray[np.float64] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def valid_sequences(self) -> pa.Array:
        """The repaired sequences of the valid rows."""
        return self.table["repaired"].filter(self.table["problem"].is_null()).combine_chunks()

    def with_predictions(self, values: npt.NDArray[np.float32], labels: Sequence[str] = ()) -> "Part":
        """Replace column repaired by prediction, or by prediction_NAME per label: float32, null for an invalid row.

        values: of the valid rows, (rows,) or (rows, labels); labels: names of several, empty for one.
        """
        prediction = np.full((len(self), len(labels) or 1), np.nan, np.float32)
        prediction[self.table["problem"].is_null().to_numpy()] = values.reshape(-1, len(labels) or 1)
        place, table = self.table.column_names.index("repaired"), self.table.drop_columns("repaired")
        for number, name in enumerate([f"prediction_{label}" for label in labels] or ["prediction"]):
            table = table.add_column(place + number, name, pa.array(prediction[:, number], from_pandas=True))
        return Part(self.first, table)


def find_prediction_input(names: list[str], columns: Columns | None, header_names: bool = False) -> Input:
    """Resolve file names and glob patterns, or standard input by "-", and infer the layout.

    header_names: also read the first word of each FASTA header. Raises UserError for an unreadable input, and for
    names requested of a format that has none.
    """
    if names == [STANDARD_INPUT]:
        source = _standard_input(sys.stdin.buffer, columns)
    elif STANDARD_INPUT in names:
        raise UserError("-: standard input together with files; expected - alone, or files only")
    else:
        source = _find_files(names, columns)
    if source.layout is None or source.layout.kind != "fasta":
        if header_names:
            raise UserError("--names: reads FASTA headers, got a table; fix: --name-column NAME, for a column of names")
        return source
    if columns is not None and columns.name is not None:
        raise UserError(
            f"--name-column {columns.name}: FASTA has no columns; fix: --names, for the names in its headers"
        )
    return replace(source, layout=replace(source.layout, name_field=int(header_names)))


def _find_files(names: list[str], columns: Columns | None) -> Input:
    """Resolve files, with their labels if one column is clearly that of the labels."""
    with suppress(UserError):  # labels that are ambiguous or invalid do not matter
        source = find_input(names, columns, labelled=True, keep_columns=False)
        if source.labelled and _has_clear_label(source):
            return source
    return find_input(names, columns, labelled=False, keep_columns=False)


def _has_clear_label(source: Input) -> bool:
    """Whether the label has a name that labels have, or is the second of two columns without a header line."""
    label, layout = source.column_names[1], source.layout
    is_plain = layout is not None and layout.kind == "text" and layout.columns == 2 and not layout.skip_lines
    return is_plain or (label or "").lower() in EXPRESSION_NAMES


def _standard_input(stream: BinaryIO, columns: Columns | None) -> Input:
    head = b""
    while len(head) < HEAD_BYTES and (chunk := stream.read(HEAD_BYTES - len(head))):
        head += chunk
    name = "standard input"
    layout = layout_of_text(name, head, columns)
    chunks = chain([head], iter(lambda: stream.read(HEAD_BYTES), b""))
    if layout.kind == "fasta":
        return Input([], layout, labelled=False, stream=fasta_input(name, chunks))
    rows = line_input(name, chunks, layout.comment_lines + layout.skip_lines)
    return Input([], layout, labelled=False, stream=rows)


def read_parts(source: Input, assay: Assay, rows: int) -> Generator[Part]:
    """Read and validate the input in parts of `rows` rows, the last one shorter.

    The parts depend on the input alone. Raises UserError for an unreadable input.
    """
    named = source.name_column is not None or (source.layout is not None and source.layout.name_field > 0)
    name = "coalesce(name, '') as name, " if named else ""
    label = ", try_cast(expression as double) as label" if source.labelled else ""
    query = f"select {name}coalesce(sequence, '') as sequence, {VALIDATED}{label} from input"
    first = 0
    with _open_input(source, assay) as connection:
        for table in rebatch(connection.sql(query).to_arrow_reader(READ_ROWS), rows):
            if label:
                *_, labels = table.columns
                yield Part(first, table.drop_columns("label"), labels.to_numpy())
            else:
                yield Part(first, table)
            first += table.num_rows


@contextmanager
def _open_input(source: Input, assay: Assay) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with view `input`; report errors of DuckDB and of the input's stream."""
    with duckdb.connect() as connection:
        try:
            define_input(connection, assay, source)
            yield connection
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise input_error(source, error) from None
