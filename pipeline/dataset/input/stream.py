"""Stream the rows of files or standard input to DuckDB as Arrow batches, so that Python alone opens the files."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipeline.dataset.input.compression import read_chunks
from pipeline.dataset.input.fasta import fasta_entries
from pipeline.dataset.input.lines import line_batches

PLACE = (("file", pa.dictionary(pa.int8(), pa.string())), ("line", pa.int64()))
"""line: the number, from 1, of the line or of the row of a table; of the header for an entry of FASTA."""
LINE_SCHEMA = pa.schema([*PLACE, ("text", pa.string())])
ENTRY_SCHEMA = pa.schema([*PLACE, ("text", pa.string()), ("header", pa.string()), ("sequence", pa.string())])


class RowStream:
    """Record batches that DuckDB reads from the beginning in each scan (the Arrow PyCapsule interface).

    error: the error that ended a scan; DuckDB keeps only its text.
    """

    def __init__(self, schema: pa.Schema, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self._schema = schema
        self._batches = batches
        self.error: BaseException | None = None

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Open the stream without reading: DuckDB also opens it for its schema."""
        reader = pa.RecordBatchReader.from_batches(self._schema, self._record_errors())
        return reader.__arrow_c_stream__(requested_schema)

    def _record_errors(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise


def line_files(skip_lines: Mapping[str, int]) -> RowStream:
    """Stream the lines of text files, compressed or not. skip_lines: lines to skip at the head of each file.

    A corrupt file, and text that is not UTF-8, end the scan with a UserError.
    """
    return RowStream(
        LINE_SCHEMA,
        lambda: (rows for file, skip in skip_lines.items() for rows in _lines(file, read_chunks(file), skip)),
    )


def line_input(name: str, chunks: Iterable[bytes], skip_lines: int) -> RowStream:
    """Stream the lines of text that can be read once, without the first `skip_lines`."""
    return RowStream(LINE_SCHEMA, lambda: _lines(name, chunks, skip_lines))


def fasta_files(files: list[str]) -> RowStream:
    """Stream the entries of FASTA files, compressed or not. A corrupt file ends the scan with a UserError."""
    return RowStream(ENTRY_SCHEMA, lambda: (rows for file in files for rows in _entries(file, read_chunks(file))))


def fasta_input(name: str, chunks: Iterable[bytes]) -> RowStream:
    """Stream the entries of FASTA text that can be read once."""
    return RowStream(ENTRY_SCHEMA, lambda: _entries(name, chunks))


def row_batch(schema: pa.Schema, name: str, columns: list[pa.Array]) -> pa.RecordBatch:
    """Make a batch of rows of one file. columns: values of all columns except the first, `file`."""
    file = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(columns[0]), np.int8)), pa.array([name]))
    return pa.record_batch([file, *columns], schema=schema)


def _lines(name: str, chunks: Iterable[bytes], skip_lines: int) -> Iterator[pa.RecordBatch]:
    for numbers, lines in line_batches(name, chunks, skip_lines):
        yield row_batch(LINE_SCHEMA, name, [numbers, lines])


def _entries(name: str, chunks: Iterable[bytes]) -> Iterator[pa.RecordBatch]:
    for entries in fasta_entries(name, chunks):
        yield row_batch(ENTRY_SCHEMA, name, [entries.line, entries.text, entries.header, entries.sequence])
