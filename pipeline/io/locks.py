"""Lock files that the kernel releases when their holder dies, even by kill -9."""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

from pipeline.errors import UserError

RETRY_SECONDS = 0.1
"""Time for a second attempt: the last holder may have just deleted the file."""

NO_FLOCK = errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK
"""Errors of flock on network file systems that are mounted without it."""


def hold_lock(path: Path, busy: str) -> ExitStack:
    """Lock a file until the returned stack is closed.

    busy: the end of the error "process N {busy}" if process N holds the lock. Raises UserError then, and if the file
    cannot be written.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as stack:
        try:
            # No soft lock on file systems without flock: it would remain after a killed holder.
            stack.enter_context(FileLock(path, RETRY_SECONDS, fallback_to_soft=False))
            path.write_text(str(os.getpid()), encoding="ascii")
        except Timeout:
            raise UserError(f"process {_holder(path)} {busy}") from None
        except OSError as error:
            if error.errno in NO_FLOCK:
                path.unlink(missing_ok=True)
                fix = "use a local disk, or mount the file system with flock"
                raise UserError(f"{path.parent}: the file system has no file locks; fix: {fix}") from None
            raise UserError(f"{path}: cannot write: {error.strerror}") from None
        return stack.pop_all()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii") or "?"
    except OSError:
        return "?"
