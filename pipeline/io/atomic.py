"""Atomic file and directory writes: write under a hidden name, flush to the disk, rename."""

import errno
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a full disk, and of a full quota."""
FREE_SPACE = "free disk space"


def expect_folder(path: Path) -> None:
    """Raise UserError if the folder of an output file does not exist: a typo must not make new folders."""
    folder = path.parent
    if not folder.exists():
        raise UserError(f"{path}: no folder {folder}; fix: mkdir -p {shlex.quote(str(folder))}, or name another path")
    if not folder.is_dir():
        raise UserError(f"{path}: {folder} is not a folder; fix: name another path")


def fix_of_write_error(error: BaseException | None, folder: Path) -> str:
    """Say how to resume a run that could not write into its folder. An OSError without a number is of a full disk."""
    if not folder.is_dir():
        return "run the same command to start again"
    number = error.errno if isinstance(error, OSError) else None
    if number is None or number in DISK_FULL:
        problem = FREE_SPACE
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        problem = f"make {folder} writable"
    else:
        problem = f"check the disk of {folder}"
    return f"{problem}, then run the same command to resume"


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write `path` atomically: yield a temporary path beside it, which is renamed to `path` when the block ends.

    An error in the block leaves `path` unchanged. The temporary name has the same suffix. Raises UserError if the disk
    is full or the folder is not writable.
    """
    # Processes of several machines may write to a shared folder.
    temporary = path.with_name(f".{socket.gethostname()}-{os.getpid()}.partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        fix = f"; fix: {FREE_SPACE}, then run the same command again" if error.errno in DISK_FULL else ""
        raise UserError(f"{path}: cannot write: {error.strerror or error}{fix}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically. Raises UserError for the errors of new_file."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_folder(new: Path, target: Path) -> None:
    """Replace folder `target` by folder `new`.

    The old folder has a hidden name until `new` is renamed. If the process is killed meanwhile, `recover_folder`
    restores the old folder.
    """
    recover_folder(target)
    try:
        if target.exists():
            target.rename(_old_folder(target))
        new.rename(target)
    finally:
        recover_folder(target)


def recover_folder(target: Path) -> None:
    """Finish an interrupted `replace_folder`: restore the old folder if `target` is missing, or else remove it."""
    if target.exists():
        shutil.rmtree(_old_folder(target), ignore_errors=True)
    elif _old_folder(target).exists():
        _old_folder(target).rename(target)


def _old_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def flush_to_disk(path: Path) -> None:
    """Flush the bytes of a file to the disk. Done before a rename, so that a power cut leaves no empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
