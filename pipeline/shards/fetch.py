"""Fetch files of shards from a URL (https://, s3://, ...: any file system that fsspec knows), with retries."""

import errno
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import UserError
from pipeline.io.http import CONNECT_SECONDS, SILENT_SECONDS, WAITS
from pipeline.io.remote import open_file_system
from pipeline.shards.index import INDEX, Index, parse_index

_REFUSED = (401, 403, 410)
"""HTTP codes that waiting does not change."""
_WRONG_ANSWERS = 2
"""After this many corrupt files, the server's own copy counts as corrupt."""
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def fetch_index(url: str, waits: Sequence[float] = WAITS) -> Index:
    """Fetch and parse the index of the shards at a URL. Raises UserError if it is missing or invalid."""
    name = f"{url.rstrip('/')}/{INDEX}"
    with TemporaryDirectory() as folder:
        target = Path(folder) / INDEX
        fetch_file(name, target, waits=waits)
        return parse_index(target.read_bytes(), name)


def fetch_file(
    url: str,
    target: Path,
    expected: tuple[int, str] | None = None,
    waits: Sequence[float] = WAITS,
    silent_seconds: float = SILENT_SECONDS,
) -> None:
    """Copy a URL's file to a path. expected: its size in bytes and sha256, if known.

    Retries broken and silent connections, busy servers and corrupt files after each of `waits` seconds. Raises
    UserError if the file is missing, refused, or corrupt again and again; OSError from the disk.
    """
    corrupt = 0
    system, path = open_file_system(url, **_time_limits(url, silent_seconds))
    for wait in [*waits, None]:
        try:
            system.get_file(path, str(target))
            problem = _difference(target, expected)
            if problem is None:
                return
            corrupt += 1
        except (FileNotFoundError, PermissionError) as error:
            if getattr(error, "filename", None) == str(target):
                raise
            refused = "access denied" if isinstance(error, PermissionError) else "no such file"
            raise UserError(f"{url}: {refused}: {error}; fix: check shards.path, or write the shards there") from None
        except Exception as error:  # each file system has errors of its own
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if getattr(error, "status", None) in _REFUSED or type(error).__name__ == "NoCredentialsError":
                raise UserError(f"{url}: access denied: {problem}; fix: check the credentials") from None
        if wait is None or corrupt >= _WRONG_ANSWERS:
            raise UserError(f"{url}: {problem}; fix: check the server, or write the shards there again")
        time.sleep(wait)


def _difference(path: Path, expected: tuple[int, str] | None) -> str | None:
    """Say how a file differs from its expected size and sha256; None if it does not."""
    if expected is None:
        return None
    size, sha256 = expected
    if (got := path.stat().st_size) != size:
        return f"expected {size:,} bytes, got {got:,}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == sha256 else f"expected sha256 {sha256[:16]}..., got {digest[:16]}..."


def _time_limits(url: str, silent_seconds: float) -> dict[str, Any]:
    """Make the options that limit how long a file system waits; each has a way of its own."""
    if url.startswith(("http://", "https://")):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silent_seconds)
        return {"client_kwargs": {"timeout": limits}}
    if url.startswith("s3://"):
        return {"config_kwargs": {"connect_timeout": CONNECT_SECONDS, "read_timeout": silent_seconds}}
    return {}
