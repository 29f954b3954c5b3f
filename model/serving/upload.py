"""Store an upload in a private temporary folder, under a name that tells the format of its content.

The client's file name is not used.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from model.serving.limits import Limits, too_large
from pipeline.dataset.input.compression import read_chunks
from pipeline.dataset.input.lines import BYTE_ORDER_MARK
from pipeline.errors import UserError

COMPRESSIONS = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"PK\3\4": ".zip"}
"""First bytes -> file extension."""
CONTENTS = {b"PAR1": ".parquet", b"ARROW1": ".arrow", b"{": ".jsonl", b">": ".fasta"}
"""First bytes after white space and FASTA comments -> file extension. Other contents are text."""
FASTA_COMMENTS = re.compile(rb"\s*(?:;[^\n]*\n\s*)*")
HEAD_BYTES = 1 << 16


@contextmanager
def stored_upload(data: bytes, limits: Limits) -> Iterator[Path]:
    """Yield the file of an upload, decompressed; it is deleted at the end of the block.

    Raises RefusedError for too many bytes after decompression, and UserError for a corrupt file.
    """
    with TemporaryDirectory(prefix="promoter-bert-serve-") as folder:
        try:
            yield _store(data, Path(folder), limits)
        except UserError as error:  # clients must not see the name of the folder
            raise UserError(re.sub(rf"{re.escape(folder)}/[\w.]+", "the input", str(error))) from None


def _store(data: bytes, folder: Path, limits: Limits) -> Path:
    file = folder / "input"
    if compression := _extension(data, COMPRESSIONS):
        compressed = folder / f"compressed{compression}"
        compressed.write_bytes(data)
        size_bytes = 0
        with file.open("wb") as out:
            for chunk in read_chunks(str(compressed)):
                if (size_bytes := size_bytes + len(chunk)) > limits.body_bytes:
                    raise too_large(limits)
                out.write(chunk)
    else:
        file.write_bytes(data)
    with file.open("rb") as stored:
        head = stored.read(HEAD_BYTES).removeprefix(BYTE_ORDER_MARK)
    comments = FASTA_COMMENTS.match(head)
    assert comments is not None
    return file.rename(file.with_suffix(_extension(head[comments.end() :], CONTENTS) or ".txt"))


def _extension(data: bytes, kinds: dict[bytes, str]) -> str:
    return next((extension for magic, extension in kinds.items() if data.startswith(magic)), "")
