"""Count the rows of files in their bytes, apart from the streams that split them, to check that none is lost."""

from collections.abc import Iterable
from itertools import chain

import numpy as np

from pipeline.dataset.input.compression import read_chunks
from pipeline.dataset.input.files import Input
from pipeline.dataset.input.lines import BYTE_ORDER_MARK
from pipeline.dataset.input.tables import table_row_count


def count_rows(source: Input) -> int:
    """Count the lines, entries or table rows of the files; 0 for standard input.

    Raises UserError for a corrupt file.
    """
    if not source.files:
        return 0
    if source.layout is None:
        counts = [table_row_count(file) for file in source.files]
        return sum(
            count_lines(read_chunks(file)) if count is None else count
            for file, count in zip(source.files, counts, strict=True)
        )
    if source.layout.kind == "fasta":
        return sum(count_entries(read_chunks(file)) for file in source.files)
    lines = sum(count_lines(read_chunks(file)) for file in source.files)
    return lines - source.layout.comment_lines - source.layout.skip_lines * len(source.files)


def count_lines(chunks: Iterable[bytes]) -> int:
    r"""Count lines that end in \n, or all in \r; the last one may have no line end."""
    newlines = carriage_returns = 0
    last = b""
    for chunk in chunks:
        newlines += int(np.count_nonzero(np.frombuffer(chunk, np.uint8) == ord("\n")))  # faster than bytes.count
        carriage_returns += chunk.count(b"\r") if newlines == 0 else 0
        last = chunk[-1:]
    return (newlines or carriage_returns) + (last not in (b"", b"\n" if newlines else b"\r"))


def count_entries(chunks: Iterable[bytes]) -> int:
    """Count the headers of FASTA text, and the text before the first one."""
    rest = iter(chunks)
    headers, last, is_headless = 0, b"\n", None
    for chunk in chain([next(rest, b"").removeprefix(BYTE_ORDER_MARK)], rest):
        text = last + chunk
        headers += text.count(b"\n>") + text.count(b"\r>")
        last = text[-1:]
        if is_headless is None and (first := text.lstrip(b"\r\n")[:1]):
            is_headless = first != b">"
    return headers + bool(is_headless)
