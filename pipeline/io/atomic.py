"""Writing that is whole or not there: under another name first, flushed to the disk, then renamed."""

import ctypes
import errno
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import UserError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def expect_folder(path: Path) -> None:
    """Raise UserError where a user names an output in a folder that is not there: a typo is to make no new folders."""
    folder = path.parent
    if folder.is_dir():
        return
    if folder.exists():
        raise UserError(f"{path}: {folder} is not a folder; name another place")
    raise UserError(f"{path}: no folder {folder}; make it (mkdir -p {shlex.quote(str(folder))}), or name another place")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what was written there becomes `path` at the end, unless an error came.

    The name ends like `path`'s. Raises UserError where the disk is full or the folder cannot be written to.
    """
    # Processes of several machines may write to a folder that they share.
    temporary = path.with_name(f".{socket.gethostname()}-{os.getpid()}.partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; make room, then start the same command again" if full else ""
        raise UserError(f"{path}: cannot write: {error.strerror or error}{advice}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_folder(new: Path, target: Path) -> None:
    """Put folder `new` where `target` is, which may be there already: no moment in which neither is there.

    Linux swaps two names in one step; where the file system cannot, the old folder steps aside first.
    """
    if not target.exists():
        new.rename(target)
        return
    if _exchanged(new, target):
        shutil.rmtree(new)
        return
    aside = target.with_name(f".{target.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    new.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Have the system write a file's bytes before its new name can be seen: a power cut leaves no empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _exchanged(a: Path, b: Path) -> bool:
    """Swap two names by Linux's renameat2. False where it or the file system does not know how."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(b))
