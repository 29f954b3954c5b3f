"""One process at a time, by a lock that the kernel lets go of when its holder dies, kill -9 included."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from pipeline.errors import UserError


def hold_lock(path: Path, busy: str) -> TextIO:
    """Lock a file until what is returned is closed. Raises UserError: "process N " and `busy` if another holds it,
    or where the file cannot be made.
    """
    while True:
        try:
            lock = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot write: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read() or "?"
            lock.close()
            raise UserError(f"process {holder} {busy}") from None
        if _is_still_there(lock, path):
            break
        lock.close()  # its last holder has just deleted it
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except OSError as error:
        with suppress(OSError):
            lock.close()
        raise UserError(f"{path}: cannot write: {error.strerror}") from None
    return lock


def _is_still_there(lock: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
