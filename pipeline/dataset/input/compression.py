"""Read the bytes of input files, decompressed by the ending of their names."""

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError

COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz", ".zip")
CHUNK_BYTES = 1 << 21
"""Small enough for the cache of a core: larger chunks are read more slowly."""
XZ_READ_BYTES = 1 << 18
ERRORS = (
    OSError,
    EOFError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
    pa.ArrowException,
    NotImplementedError,
    RuntimeError,
)
"""Errors of the decompressors. zipfile raises a RuntimeError for an encrypted file."""


def read_chunks(file: str) -> Iterator[bytes]:
    """Read the decompressed bytes of a file in chunks. Raises UserError for an unreadable or corrupt file."""
    try:
        if file.endswith(".xz"):
            yield from _xz_chunks(file)
            return
        with _open(file) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except ERRORS as error:
        raise UserError(f"{file}: cannot be read, corrupt or truncated: {error}; fix: copy it again") from None


def _xz_chunks(file: str) -> Iterator[bytes]:
    """Read all streams of an xz file. Module lzma would silently stop at padding, and at a corrupt second stream."""
    with Path(file).open("rb") as compressed:
        decompressor = lzma.LZMADecompressor()
        started = False
        while data := compressed.read(XZ_READ_BYTES):
            while data:
                if decompressor.eof:
                    decompressor, started = lzma.LZMADecompressor(), False
                if not started and not (data := data.lstrip(b"\0")):  # padding
                    break
                started = True
                while not decompressor.eof and (chunk := decompressor.decompress(data, CHUNK_BYTES)):
                    yield chunk
                    data = b""
                data = decompressor.unused_data
        if not decompressor.eof and started:
            raise EOFError("the last stream has no end")


def absolute(file: str) -> str:
    """Return the absolute name of a file. Arrow would read `~/a.tsv` from the home, and `s3:a.parquet` as a URL."""
    return str(Path(file).absolute())


def decompressed_name(file: str) -> str:
    """Return the name of the decompressed data: without the ending of its compression, or the name in a zip archive.

    Raises UserError for a zip archive that does not hold exactly one file.
    """
    if file.endswith(".zip"):
        return _zip_member(file)
    return next((file.removesuffix(suffix) for suffix in COMPRESSED_SUFFIXES if file.endswith(suffix)), file)


@contextmanager
def _open(file: str) -> Iterator[Any]:
    if file.endswith(".zip"):
        with zipfile.ZipFile(file) as archive, archive.open(_zip_member(file)) as member:
            yield member
    else:
        with pa.input_stream(absolute(file), buffer_size=None) as stream:  # knows .gz, .zst and .bz2
            yield stream


def _zip_member(file: str) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [member.filename for member in archive.infolist() if not member.is_dir()]
    except ERRORS as error:
        raise UserError(f"{file}: cannot be read, corrupt or truncated: {error}; fix: copy it again") from None
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        held = ", ".join(names[:5]) or "no file"
        raise UserError(f"{file}: expected one file in the archive, got {len(names)}: {held}; fix: unzip {file}")
    return names[0]
