"""Atomic file and directory writes: to another name first, flushed to the disk, then renamed."""

import errno
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import UserError


def expect_folder(path: Path) -> None:
    """Raise UserError where an output's folder does not exist: a typo must not make new folders."""
    folder = path.parent
    if not folder.exists():
        raise UserError(f"{path}: no folder {folder}; fix: mkdir -p {shlex.quote(str(folder))}, or name another place")
    if not folder.is_dir():
        raise UserError(f"{path}: {folder} is not a folder; fix: name another place")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write `path` atomically: yields another name beside it to write to, which is renamed at the end of the block.

    An error in the block leaves `path` as it was. The other name has the same suffix. Raises UserError where the disk
    is full or the folder cannot be written to.
    """
    # Processes of several machines may write to a shared folder.
    temporary = path.with_name(f".{socket.gethostname()}-{os.getpid()}.partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "; fix: make room, then run the same command again" if full else ""
        raise UserError(f"{path}: cannot write: {error.strerror or error}{fix}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_folder(new: Path, target: Path) -> None:
    """Rename folder `new` to `target`, in place of the folder there.

    The old folder is kept aside until the new one has its name. After a kill in between, `recover_folder` puts it back.
    """
    recover_folder(target)
    try:
        if target.exists():
            target.rename(_aside(target))
        new.rename(target)
    finally:
        recover_folder(target)


def recover_folder(target: Path) -> None:
    """Finish a killed `replace_folder`: put the old folder back where there is no new one, or remove it."""
    if target.exists():
        shutil.rmtree(_aside(target), ignore_errors=True)
    elif _aside(target).exists():
        _aside(target).rename(target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def flush_to_disk(path: Path) -> None:
    """Flush a file's bytes to the disk. Before a rename: a power cut then leaves no empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
