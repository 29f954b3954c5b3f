"""Rows that are no file of lines (standard input, FASTA entries), as something that DuckDB reads like one: a pipe."""

import io
import os
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from pipeline.errors import UserError

CHUNK_BYTES = 1 << 20


@contextmanager
def piped(chunks: Iterable[bytes]) -> Iterator[str]:
    """The path of a pipe through which the chunks come, written by a thread while the block reads it to its end.

    What the chunks' iterator raises ends the pipe, and is raised at the end of the block.
    """
    reads, writes = os.pipe()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with open(writes, "wb", buffering=CHUNK_BYTES) as pipe:  # noqa: PTH123 (of a descriptor)
                for chunk in chunks:
                    pipe.write(chunk)
        except BrokenPipeError:  # nobody reads any more
            pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write, name="feed", daemon=True)
    thread.start()
    try:
        yield f"/dev/fd/{reads}"
    finally:
        os.close(reads)
    thread.join()  # after an error in the block it may wait for a chunk for ever, and ends with the process
    if failed:
        raise failed[0]


def fasta_lines(names: Iterable[str], named: bool = False) -> Generator[bytes]:
    """The sequences of FASTA files, a line each; text before a file's first header is one, too. named: see
    sequence_lines.

    Raises UserError for a compressed file that is damaged.
    """
    for name in names:
        try:
            with pa.input_stream(name) as stream:  # unpacks by the file's name
                yield from sequence_lines(io.BufferedReader(stream, CHUNK_BYTES), named)
        except OSError as error:
            raise UserError(f"{name}: cannot be read, damaged or cut off: {error}") from None


def sequence_lines(lines: Iterable[bytes], named: bool = False) -> Generator[bytes]:
    """Lines of FASTA -> the sequence of each entry, with a line end. named: behind the first word of its header and a
    tab."""
    entry: list[bytes] | None = None
    name = b""

    def joined(parts: list[bytes]) -> bytes:
        return (name + b"\t" if named else b"") + b"".join(parts) + b"\n"

    for line in lines:
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        if text.startswith(b">"):
            if entry is not None:
                yield joined(entry)
            entry = []
            name = _first_word(text[1:]) if named else b""
        elif entry is not None:
            entry.append(text)
        elif text:
            entry = [text]
    if entry is not None:
        yield joined(entry)


def _first_word(header: bytes) -> bytes:
    """In UTF-8, whatever the header is in."""
    return b"".join(header.decode(errors="replace").encode().split(maxsplit=1)[:1])
