"""Stream rows to DuckDB as Arrow batches: the entries of FASTA files, and the lines of standard input."""

import codecs
import io
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError

CHUNK_BYTES = 1 << 19
SCHEMA = pa.schema([("file", pa.string()), ("line", pa.int64()), ("text", pa.string())])
"""line: the line of the file, from 1, at which the text begins; None for standard input."""


class RowStream:
    """Record batches that DuckDB reads from the beginning in each scan (the Arrow PyCapsule interface).

    error: the error that ended a scan; DuckDB keeps only its text.
    """

    def __init__(self, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self._batches = batches
        self.error: BaseException | None = None

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Open the stream without reading: DuckDB also opens it for its schema."""
        return pa.RecordBatchReader.from_batches(SCHEMA, self._record_errors()).__arrow_c_stream__(requested_schema)

    def _record_errors(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise


def fasta_files(files: list[str]) -> RowStream:
    """Stream the entries of FASTA files, compressed or not. A corrupt file ends the scan with a UserError."""
    return RowStream(lambda: (batch for file in files for batch in _entry_batches(file, _read_chunks(file))))


def fasta_input(name: str, chunks: Iterable[bytes]) -> RowStream:
    """Stream the entries of FASTA text that can be read once."""
    return RowStream(lambda: _entry_batches(name, chunks))


def line_input(name: str, chunks: Iterable[bytes], skip_lines: int) -> RowStream:
    """Stream the lines of UTF-8 text that can be read once, without the first `skip_lines`."""
    return RowStream(lambda: _line_batches(name, chunks, skip_lines))


def _read_chunks(file: str) -> Iterator[bytes]:
    try:
        with pa.input_stream(file) as stream:  # decompresses by the file's name
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise UserError(f"{file}: corrupt or cut off: {error}; fix: fetch it again") from None


def _line_batches(name: str, chunks: Iterable[bytes], skip_lines: int) -> Iterator[pa.RecordBatch]:
    try:
        for block in _regroup(_decode(chunks, "strict"), "\n"):
            lines = pc.split_pattern(pa.scalar(block), "\n").values[1 + skip_lines :]
            skip_lines -= min(skip_lines, block.count("\n"))
            yield _batch(name, pa.nulls(len(lines), pa.int64()), lines)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not text in UTF-8: {error}") from None


def _entry_batches(name: str, chunks: Iterable[bytes]) -> Iterator[pa.RecordBatch]:
    """Cut one FASTA text into entries. Headers may be in any encoding: bytes that are not UTF-8 become U+FFFD."""
    line = 1
    for block in _regroup(_regroup(_decode(chunks, "replace"), "\n"), "\n>"):
        yield _entries(name, line, block)
        line += block.count("\n")


def _entries(name: str, first_line: int, block: str) -> pa.RecordBatch:
    """Cut a block before each header. Text before the first header is an entry of its own, without its empty lines."""
    data = block.encode()
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


def _decode(chunks: Iterable[bytes], errors: str) -> Iterator[str]:
    """Decode UTF-8, without a byte-order mark. Each line begins with \\n in place of its line end."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(errors), translate=True)
    before = "\n"
    for chunk in chunks:
        text = before + decoder.decode(chunk)
        before = "\n" if text.endswith("\n") else ""
        yield text.removesuffix("\n")
    yield (before + decoder.decode(b"", final=True)).removesuffix("\n")


def _regroup(texts: Iterable[str], separator: str) -> Iterator[str]:
    """Cut each text before its last separator, and join what lies between two cuts."""
    begun: list[str] = []
    for text in texts:
        end = text.rfind(separator)
        if end >= 0:
            if whole := "".join([*begun, text[:end]]):
                yield whole
            begun = []
        begun.append(text[max(end, 0) :])
    if last := "".join(begun):
        yield last
