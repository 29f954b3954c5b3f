"""The error of a disk that is full or fails while a run writes to it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError

SIGNS = ("PytorchStreamWriter", "inline_container", "No space left", "file write failed", "iostream error")
"""Texts in a RuntimeError of torch that stands for a full disk."""


@contextmanager
def report_disk_error(path: Path, problem: str, intact: str, partial: Path) -> Iterator[None]:
    """Report a disk that is full or fails while the block writes; after any error, remove what it wrote.

    path: what is written; intact: what is still whole, for the error; partial: the folder that the block writes to
    first. Raises UserError.
    """
    try:
        yield
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        cause = error.__context__ if isinstance(error, UserError) else error  # atomic writes raise UserError
        is_of_disk = isinstance(cause, OSError) and not isinstance(cause, ConnectionError)
        if not is_of_disk and not any(sign in str(cause) for sign in SIGNS):  # such as a lost rank
            raise
        folder = next(place for place in (path, *path.absolute().parents) if place.exists())
        raise UserError(
            f"{path}: {problem}, {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free on that disk "
            f"({str(cause).splitlines()[0]}); {intact}; fix: make room, then run the same command to resume"
        ) from None
