"""The error of a disk that is full or fails while a run writes to it."""

import shutil
from pathlib import Path

from pipeline.errors import UserError

SIGNS = ("PytorchStreamWriter", "inline_container", "No space left", "file write failed", "iostream error")
"""Texts in a RuntimeError of torch that stands for a full disk."""


def is_disk_error(error: Exception) -> bool:
    """Whether writing to the disk failed. torch wraps a full disk in a RuntimeError."""
    if isinstance(error, OSError):
        return not isinstance(error, ConnectionError)
    return any(sign in str(error) for sign in SIGNS)


def disk_error(path: Path, problem: str, error: Exception, intact: str) -> UserError:
    """Make the user's error. path: what was written; intact: what is still there."""
    folder = next(place for place in (path, *path.absolute().parents) if place.exists())
    free_megabytes = shutil.disk_usage(folder).free / 1e6
    return UserError(
        f"{path}: {problem}, {free_megabytes:,.0f} MB are free on that disk ({str(error).splitlines()[0]}); {intact}; "
        "fix: make room, then run the same command to resume"
    )
