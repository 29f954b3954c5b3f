"""Fetches of shards and indexes from a URL, with retries, on any file system that fsspec supports (https://, s3://)."""

import errno
import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import UserError
from pipeline.io.http import CHUNK_BYTES, CONNECT_SECONDS, HEADERS, SILENT_SECONDS, WAITS
from pipeline.io.remote import SMALL_FILE_BYTES, OverlongError, copy_file, open_file_system
from pipeline.shards.index import INDEX, Index, parse_index

_PERMANENT_STATUS = (401, 403, 410)
"""HTTP status codes of errors that a retry does not change."""
_MAX_CORRUPT = 2
"""Corrupt copies after which the file on the server counts as corrupt."""
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def fetch_index(url: str, waits: Sequence[float] = WAITS) -> Index:
    """Fetch and validate the index of the shards at a URL, with retries after each of `waits` seconds.

    Raises UserError if it is missing or invalid.
    """
    name = f"{url.rstrip('/')}/{INDEX}"
    with TemporaryDirectory() as folder:
        target = Path(folder) / INDEX
        fetch_file(name, target, waits=waits)
        return parse_index(target.read_bytes(), name, partial(_read_table, waits=waits, whole={}))


def _read_table(url: str, name: str, start: int, end: int, waits: Sequence[float], whole: dict[str, bytes]) -> bytes:
    """Read rows of a table of records, with retries; from the whole file if the store ignores byte ranges.

    whole: by name, the tables that were fetched whole; each is fetched once.
    """
    if name not in whole:
        try:
            return fetch_range(f"{url}/{name}", start, end - start, waits)
        except NoRangesError:
            with TemporaryDirectory() as folder:
                target = Path(folder) / "table.npy"
                fetch_file(f"{url}/{name}", target, waits=waits)
                whole[name] = target.read_bytes()
    return whole[name][start:end]


def fetch_file(
    url: str,
    target: Path,
    expected: tuple[int, str] | None = None,
    waits: Sequence[float] = WAITS,
    silent_seconds: float = SILENT_SECONDS,
) -> None:
    """Fetch the file of a URL to a local path. expected: its size in bytes and sha256, if known.

    Broken and silent connections, busy servers and corrupt copies are retried after each of `waits` seconds.
    silent_seconds: timeout of a connection that receives no bytes. Raises UserError if the file is missing, refused,
    or repeatedly corrupt, and OSError for an error of the local disk.
    """
    system, path = open_file_system(url, **_make_time_limits(url, silent_seconds))
    size_bytes = SMALL_FILE_BYTES if expected is None else expected[0]

    def attempt() -> str | None:
        copy_file(system, path, target, size_bytes)
        return _describe_difference(target, expected)

    _retry(url, attempt, waits, str(target))


class NoRangesError(Exception):
    """A store that returns whole files instead of byte ranges."""


def fetch_range(
    url: str, start: int, size_bytes: int, waits: Sequence[float] = WAITS, silent_seconds: float = SILENT_SECONDS
) -> bytes:
    """Fetch some bytes of the file of a URL, with retries as in fetch_file.

    Raises NoRangesError if the store returns more, and UserError as fetch_file does.
    """
    content = b""

    def attempt() -> str | None:
        nonlocal content
        content = _read_range(url, start, start + size_bytes, silent_seconds)
        short = f"expected {size_bytes:,} bytes from {start:,} on, got {len(content):,}"
        return short if len(content) < size_bytes else None

    _retry(url, attempt, waits)
    if len(content) > size_bytes:
        raise NoRangesError(url)
    return content


class _StatusError(Exception):
    """An HTTP response with a status that is an error."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status


def _read_range(url: str, start: int, end: int, silent_seconds: float) -> bytes:
    """Read a byte range of the file of a URL. Of a whole file, it reads at most one byte more than the range has."""
    if not url.startswith(("http://", "https://")):
        system, path = open_file_system(url, **_make_time_limits(url, silent_seconds))
        content: bytes = system.cat_file(path, start=start, end=end)
        return content
    import requests  # fsspec would read the whole response of a server that ignores the range

    headers = HEADERS | {"Range": f"bytes={start}-{end - 1}"}
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, silent_seconds)) as response:
        if response.status_code == 404:
            raise FileNotFoundError(url)
        if response.status_code >= 400:
            raise _StatusError(response.status_code, response.reason)
        if response.status_code != 206:
            raise NoRangesError(url)
        received = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            received += chunk
            if len(received) > end - start:
                break
        return bytes(received)


def _retry(url: str, attempt: Callable[[], str | None], waits: Sequence[float], target: str = "") -> None:
    """Repeat an attempt, which returns a problem of the received bytes or None, after each of `waits` seconds.

    Raises UserError if the file is missing, refused, or repeatedly corrupt, and OSError for an error of the local disk.
    target: local file of the attempt.
    """
    corrupt = 0
    for wait in [*waits, None]:
        try:
            problem = attempt()
            if problem is None:
                return
            corrupt += 1
        except OverlongError as error:
            problem = str(error)
            corrupt += 1
        except NoRangesError:
            raise
        except (FileNotFoundError, PermissionError) as error:
            if target and getattr(error, "filename", None) == target:
                raise
            refused = "access denied" if isinstance(error, PermissionError) else "no such file"
            raise UserError(f"{url}: {refused}: {error}; fix: check shards.path, or write the shards there") from None
        except Exception as error:  # each file system has its own error types
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if getattr(error, "status", None) in _PERMANENT_STATUS or type(error).__name__ == "NoCredentialsError":
                raise UserError(f"{url}: access denied: {problem}; fix: check the credentials") from None
        if wait is None or corrupt >= _MAX_CORRUPT:
            raise UserError(f"{url}: {problem}; fix: check the server, or write the shards again")
        time.sleep(wait)


def _describe_difference(path: Path, expected: tuple[int, str] | None) -> str | None:
    """Describe the difference of a file from its expected size and sha256. Returns None if there is none."""
    if expected is None:
        return None
    size, sha256 = expected
    if (got := path.stat().st_size) != size:
        return f"expected {size:,} bytes, got {got:,}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == sha256 else f"expected sha256 {sha256[:16]}..., got {digest[:16]}..."


def _make_time_limits(url: str, silent_seconds: float) -> dict[str, Any]:
    """Make the timeout options of a file system; each file system has its own."""
    if url.startswith(("http://", "https://")):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silent_seconds)
        return {"client_kwargs": {"timeout": limits}}
    if url.startswith("s3://"):
        return {"config_kwargs": {"connect_timeout": CONNECT_SECONDS, "read_timeout": silent_seconds}}
    return {}
