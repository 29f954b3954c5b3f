"""Rows as Arrow streams that DuckDB scans: the entries of FASTA files, and the lines of standard input."""

import codecs
import io
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError

CHUNK_BYTES = 1 << 19
SCHEMA = pa.schema([("file", pa.string()), ("line", pa.int64()), ("text", pa.string())])
"""line: of the file, from 1, where the text begins; None for a line of standard input."""


class RowStream:
    """Record batches that DuckDB reads from the beginning in each scan (the Arrow PyCapsule interface).

    error: what ended a scan. DuckDB passes on no more than its text.
    """

    def __init__(self, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self._batches = batches
        self.error: BaseException | None = None

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Open the stream; nothing is read yet, as DuckDB also opens it to see the schema."""
        return pa.RecordBatchReader.from_batches(SCHEMA, self._noting_errors()).__arrow_c_stream__(requested_schema)

    def _noting_errors(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise


def fasta_files(files: list[str]) -> RowStream:
    """Stream the entries of FASTA files, compressed or not. A damaged file ends the scan with a UserError."""
    return RowStream(lambda: (batch for file in files for batch in _entry_batches(file, _chunks_of(file))))


def fasta_input(name: str, chunks: Iterable[bytes]) -> RowStream:
    """Stream the entries of FASTA text that can be read once."""
    return RowStream(lambda: _entry_batches(name, chunks))


def line_input(name: str, chunks: Iterable[bytes], skip_lines: int) -> RowStream:
    """Stream the lines of UTF-8 text that can be read once, but for the first `skip_lines`."""
    return RowStream(lambda: _line_batches(name, chunks, skip_lines))


def _chunks_of(file: str) -> Iterator[bytes]:
    try:
        with pa.input_stream(file) as stream:  # decompresses by the file's name
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise UserError(f"{file}: cannot be read, damaged or cut off: {error}") from None


def _line_batches(name: str, chunks: Iterable[bytes], skip_lines: int) -> Iterator[pa.RecordBatch]:
    try:
        for block in _whole_lines(chunks, "strict"):
            lines = pc.split_pattern(pa.scalar(block.removesuffix("\n")), "\n").values[skip_lines:]
            skip_lines -= min(skip_lines, block.count("\n"))
            yield _batch(name, pa.nulls(len(lines), pa.int64()), lines)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not text in UTF-8: {error}") from None


def _entry_batches(name: str, chunks: Iterable[bytes]) -> Iterator[pa.RecordBatch]:
    """The entries of one FASTA text. Headers may be in any encoding: bytes that are not UTF-8 become U+FFFD."""
    line = 1
    for block in _whole_entries(_whole_lines(chunks, "replace")):
        yield _entries(name, line, block)
        line += block.count("\n")


def _entries(name: str, first_line: int, block: str) -> pa.RecordBatch:
    """Cut a block before each header. Text before the first header is an entry of its own, without its empty lines."""
    data = ("\n" + block.removesuffix("\n")).encode()
    letters = np.frombuffer(data, np.uint8)
    line_starts = np.flatnonzero(letters[:-1] == ord("\n")) + 1
    lines = first_line + np.flatnonzero(letters[line_starts] == ord(">"))
    before, *_ = texts = pc.split_pattern(pa.scalar(data, pa.string()), "\n>").values
    entries = pc.binary_join_element_wise(pa.scalar(""), texts[1:], ">")
    headless = [(place, line) for place, line in enumerate(before.as_py().split("\n"), -1) if line]
    if headless:
        lines = np.concatenate([[first_line + headless[0][0]], lines])
        entries = pa.concat_arrays([pa.array(["\n".join(line for _, line in headless)]), entries])
    return _batch(name, pa.array(lines), entries)


def _batch(name: str, lines: pa.Array, texts: pa.Array) -> pa.RecordBatch:
    return pa.record_batch([pa.repeat(name, len(texts)), lines, texts], schema=SCHEMA)


def _whole_lines(chunks: Iterable[bytes], errors: str) -> Iterator[str]:
    """Decode UTF-8 (a byte-order mark is dropped, all line ends become \\n) into blocks of whole lines."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(errors), translate=True)
    begun: list[str] = []
    for chunk in chunks:
        text = decoder.decode(chunk)
        end = text.rfind("\n") + 1
        if end:
            yield "".join([*begun, text[:end]])
            begun = []
        begun.append(text[end:])
    begun.append(decoder.decode(b"", final=True))
    if last := "".join(begun):
        yield last


def _whole_entries(blocks: Iterable[str]) -> Iterator[str]:
    """Regroup blocks of whole lines, so that each but the first begins with a header."""
    begun: list[str] = []
    for block in blocks:
        end = block.rfind("\n>") + 1
        if end or block.startswith(">"):
            if whole := "".join([*begun, block[:end]]):
                yield whole
            begun = []
        begun.append(block[end:])
    if last := "".join(begun):
        yield last
