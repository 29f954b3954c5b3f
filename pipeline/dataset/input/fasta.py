"""Cut FASTA text into entries: the header and the joined sequence lines of each, as Arrow arrays."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dataset.input.lines import MAX_LINE_BYTES, Block, block_of, split_lines, text_blocks
from pipeline.errors import UserError


@dataclass(frozen=True)
class Entries:
    r"""Successive entries of one file, as arrays (entries,).

    line: number of the header's line, from 1; text: the lines of the entry, each with \n; header: empty for text
    before the first header; sequence: the other lines, joined.
    """

    line: pa.Array
    text: pa.Array
    header: pa.Array
    sequence: pa.Array


def fasta_entries(name: str, chunks: Iterable[bytes]) -> Iterator[Entries]:
    """Cut one FASTA text into entries. Headers may be in any encoding: bytes that are not UTF-8 become U+FFFD.

    Text before the first header is an entry of its own, without its empty lines. Raises UserError for an entry longer
    than MAX_LINE_BYTES, and for the errors of text_blocks.
    """
    line = 1
    for data in _whole_entries(name, chunks):
        text = data if data.isascii() else data.decode("utf-8", errors="replace").encode()
        start = 0 if text.startswith(b">") else text.find(b"\n>") + 1 or len(text)
        if headless := [(place, words) for place, words in enumerate(text[:start].split(b"\n"), line) if words]:
            yield _headless_entry(headless)
        block = block_of(line + text.count(b"\n", 0, start), text[start:])
        if block.data:
            yield _entries(block)
        line = block.first_line + len(block.ends)


def _headless_entry(lines: list[tuple[int, bytes]]) -> Entries:
    """Make an entry without a header of lines and their numbers."""
    text = b"".join(words + b"\n" for _, words in lines).decode()
    values = lines[0][0], text, "", text.replace("\n", "")
    return Entries(*(pa.array([value]) for value in values))


def _entries(block: Block) -> Entries:
    """Cut text that begins with a header."""
    lines = split_lines(block)
    letters = np.frombuffer(block.data, np.uint8)
    line_starts = np.append(0, block.ends[:-1] + 1)
    is_header = letters[line_starts] == ord(">")
    headers = np.flatnonzero(is_header)
    bases = lines.filter(pa.array(~is_header))
    base_offsets = np.frombuffer(bases.buffers()[1], np.int32, len(bases) + 1)
    first_bases = np.append(headers - np.arange(len(headers)), len(bases))
    return Entries(
        pa.array(block.first_line + headers),
        _strings(np.append(line_starts[headers], len(block.data)), pa.py_buffer(block.data)),
        lines.filter(pa.array(is_header)),
        _strings(base_offsets[first_bases], bases.buffers()[2]),
    )


def _strings(offsets: npt.NDArray[np.integer], data: pa.Buffer) -> pa.StringArray:
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets.astype(np.int32)), data)


def _whole_entries(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Regroup the blocks of a text so that each ends where an entry ends."""
    begun: list[bytes] = []
    for block in (block.data for block in text_blocks(name, chunks)):
        cut = block.rfind(b"\n>") + 1
        if cut or block.startswith(b">"):
            if whole := b"".join([*begun, block[:cut]]):
                yield whole
            begun = []
        begun.append(block[cut:])
        if sum(map(len, begun)) > MAX_LINE_BYTES:
            raise UserError(f"{name}: an entry is longer than {MAX_LINE_BYTES:,} bytes")
    if last := b"".join(begun):
        yield last
