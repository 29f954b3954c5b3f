r"""Cut text into lines: line ends \n, \r\n or \r, UTF-8, as Arrow batches with the number of each line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dataset.input.compression import COMPRESSED_SUFFIXES
from pipeline.errors import UserError

MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"PK\3\4", b"PAR1")
"""First bytes of gzip, Zstandard, xz, zip and Parquet."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 1 << 30
"""Limit of a line: Arrow counts the bytes of a batch in 31 bits."""


@dataclass(frozen=True)
class Block:
    r"""Whole lines of a text. first_line: number of the first line; data: all lines, each with \n.

    ends (lines,): places of the \n in data.
    """

    first_line: int
    data: bytes
    ends: npt.NDArray[np.intp]


def block_of(first_line: int, data: bytes) -> Block:
    """Find the line ends in data that ends with one."""
    return Block(first_line, data, np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")))


def text_blocks(name: str, chunks: Iterable[bytes]) -> Iterator[Block]:
    r"""Cut text into blocks of whole lines, all of which end in \n, the last one too.

    The first line end decides how lines end: \r in files of old systems, else \n or \r\n, which may be mixed.

    Raises UserError for another line end inside a line, for a NUL byte, and for a line longer than MAX_LINE_BYTES.
    """
    line = 1
    for data, end in _whole_lines(name, chunks):
        if line == 1:
            data = _expect_text(name, data).removeprefix(BYTE_ORDER_MARK)
        if b"\0" in data:
            raise UserError(f"{name}: not a text file in UTF-8: NUL byte; fix: save a spreadsheet as CSV in UTF-8")
        if end == b"\r":
            _expect_none(name, line, data, end, b"\n")
            data = data.replace(b"\r", b"\n")
        elif b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
            _expect_none(name, line, data, end, b"\r")
        yield (block := block_of(line, data))
        line += len(block.ends)


def line_batches(name: str, chunks: Iterable[bytes], skip_lines: int) -> Iterator[tuple[pa.Array, pa.StringArray]]:
    """Cut text into the numbers of its lines, from 1, and the lines, without the first `skip_lines`.

    Raises UserError for bytes that are not UTF-8, and for the errors of text_blocks.
    """
    for block in text_blocks(name, chunks):
        lines = split_lines(expect_utf8(name, block))
        first = block.first_line
        skipped = min(max(skip_lines + 1 - first, 0), len(lines))
        yield pa.array(np.arange(first + skipped, first + len(lines))), lines[skipped:]


def first_lines(name: str, chunks: Iterable[bytes], count: int, size_bytes: int) -> list[str]:
    """Decode the first lines of text: up to `count`, until `size_bytes` are read.

    Bytes that are not UTF-8 become U+FFFD. Raises UserError for an empty text, and for the errors of
    text_blocks.
    """
    lines: list[str] = []
    read = 0
    for block in text_blocks(name, chunks):
        lines += block.data.decode("utf-8", errors="replace").split("\n")[:-1]
        read += len(block.data)
        if len(lines) >= count or read >= size_bytes:
            break
    if not lines:
        raise UserError(f"{name}: the file is empty")
    return lines[:count]


def expect_utf8(name: str, block: Block) -> Block:
    """Return the block. Raises UserError with the number of the line that is not UTF-8."""
    if not block.data.isascii():
        try:
            block.data.decode()
        except UnicodeDecodeError as error:
            line = block.first_line + block.data.count(b"\n", 0, error.start)
            raise UserError(f"{name}:{line}: not text in UTF-8: {error.reason}; fix: save it in UTF-8") from None
    return block


def split_lines(block: Block) -> pa.StringArray:
    """Split a block into its lines, without the line ends."""
    offsets = np.zeros(len(block.ends) + 1, np.int32)
    np.subtract(block.ends, np.arange(len(block.ends)), out=offsets[1:], casting="unsafe")
    return pa.StringArray.from_buffers(
        len(block.ends), pa.py_buffer(offsets), pa.py_buffer(block.data.replace(b"\n", b""))
    )


def _whole_lines(name: str, chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    r"""Regroup chunks into blocks that end at a line end, and return that line end (\n or \r) with each."""
    end = b""
    begun: list[bytes] = []
    begun_bytes = 0
    rest = iter(chunks)
    for chunk in rest:
        if not end:
            if chunk.endswith(b"\r"):  # its \n may be in the next chunk
                chunk += next(rest, b"")
            end = _first_line_end(chunk)
        cut = chunk.rfind(end) + 1 if end else 0
        if cut:
            yield b"".join([*begun, memoryview(chunk)[:cut]]), end
            begun = []
        if cut < len(chunk):
            begun.append(chunk[cut:])
            begun_bytes = len(chunk) - cut + (0 if cut else begun_bytes)
            if begun_bytes > MAX_LINE_BYTES:
                raise UserError(f"{name}: a line is longer than {MAX_LINE_BYTES:,} bytes")
    if begun:
        end = end or b"\n"
        yield b"".join([*begun, end]), end


def _first_line_end(data: bytes) -> bytes:
    newline, carriage_return = data.find(b"\n"), data.find(b"\r")
    if carriage_return >= 0 and (newline < 0 or carriage_return < newline - 1):
        return b"\r"
    return b"\n" if newline >= 0 else b""


def _expect_text(name: str, data: bytes) -> bytes:
    """Return the first bytes of a text. Raises UserError for a compressed or Parquet file."""
    if data.startswith(MAGIC):
        fix = f"a name ending in {', '.join(COMPRESSED_SUFFIXES)} or .parquet, or decompress it"
        raise UserError(f"{name}: compressed or Parquet data; expected text; fix: {fix}")
    return data


def _expect_none(name: str, first_line: int, block: bytes, end: bytes, other: bytes) -> None:
    place = block.find(other)
    if place >= 0:
        line = first_line + block.count(end, 0, place)
        raise UserError(
            f"{name}:{line}: mixed line ends: {other.decode()!r} inside a line, but lines end in {end.decode()!r}; "
            "fix: write all lines with the same line end"
        )
