"""Error of a full or failing disk."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.io.atomic import fix_of_write_error

SIGNS = ("PytorchStreamWriter", "inline_container", "No space left", "file write failed", "iostream error")
"""Texts by which a RuntimeError of torch indicates a full disk."""


@contextmanager
def report_disk_error(path: Path, problem: str, intact: str, partial: Path) -> Iterator[None]:
    """Turn an error of a full or failing disk in the block into a UserError; remove partial files after any error.

    path: file or folder to write; problem: what failed, for the message; intact: what is still intact, for the message;
    partial: temporary folder of the block. Raises UserError for errors of the disk.
    """
    try:
        yield
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        cause = error.__context__ if isinstance(error, UserError) else error  # atomic writes raise UserError
        is_of_disk = isinstance(cause, OSError) and not isinstance(cause, ConnectionError)
        if not is_of_disk and not any(sign in str(cause) for sign in SIGNS):  # for example a lost rank
            raise
        folder = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        raise UserError(
            f"{path}: {problem}, {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free on that disk "
            f"({str(cause).splitlines()[0]}); {intact}; fix: {fix_of_write_error(cause, folder)}"
        ) from None
