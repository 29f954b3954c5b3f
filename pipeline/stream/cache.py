"""Shards of a URL (https://, s3://, ...: any file system that fsspec knows), by way of a bounded folder here.

A file is fetched to another name, checked against its size and sha256, and renamed: what has its name is whole. Its
name is its sha256, so that several runs, indexes and URLs may share a folder. When the folder is full, the files that
were not used for the longest time go. Processes keep out of each other's way by a lock for each file that is being
fetched, which dies with its holder; a file that one throws away can be read to its end by those who have it open.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from pipeline.errors import UserError
from pipeline.io.http import CONNECT_SECONDS, SILENT_SECONDS, WAITS
from pipeline.io.remote import file_system
from pipeline.shards.index import Index, ShardEntry, read_index

FETCHERS = 2
"""Files fetched side by side ahead of need, for each process."""
_LOOK_SECONDS = 0.05
"""Time between two looks at whether another process is through with a file."""
_REFUSED = (401, 403, 410)
"""HTTP codes that waiting does not change."""
_WRONG_ANSWERS = 2
"""A server that has sent wrong bytes so many times will send them again."""


class ShardCache:
    """A source of shards for the stream (see sources.ShardSource)."""

    def __init__(
        self,
        url: str,
        folder: Path,
        limit: int,
        waits: Sequence[float] = WAITS,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        """limit: bytes that the folder holds at most, beside what is being fetched; waits: seconds before each new try;
        silent_seconds: a connection that is silent for so long is taken for cut."""
        self.url = url.rstrip("/")
        self.folder = folder
        self.limit = limit
        self._waits = waits
        self._silent_seconds = silent_seconds
        self._expected: list[ShardEntry] = []
        self._fetchers = 0
        self._guard = threading.Lock()

    def __str__(self) -> str:
        return self.url

    def open(self, shard: ShardEntry) -> BinaryIO:
        """The file, fetched if it is not here. Raises UserError where it cannot be had: URL, expected and got."""
        path = self._path(shard)
        while True:
            with contextlib.suppress(FileNotFoundError):
                file = path.open("rb", buffering=0)
                if os.fstat(file.fileno()).st_size == shard.bytes:
                    with contextlib.suppress(OSError):  # thrown away in this moment; it stays open
                        os.utime(path)
                    return file
                file.close()  # cut off by a full disk or a crash
                path.unlink(missing_ok=True)
            self._fetch(shard)

    def expect(self, shards: Sequence[ShardEntry]) -> None:
        """Have these fetched in the background, in this order, as far as half of the folder holds them."""
        total, near = 0, []
        for shard in shards:
            total += shard.bytes
            if total > self.limit // 2:
                break
            near.append(shard)
        with self._guard:
            self._expected = [shard for shard in near if not self._path(shard).exists()]
            for _ in range(min(FETCHERS, len(self._expected)) - self._fetchers):
                self._fetchers += 1
                threading.Thread(target=self._fetch_ahead, name="fetch shards", daemon=True).start()

    def replace(self, shard: ShardEntry) -> bool:
        """Throw the file away; it is fetched again when it is opened."""
        self._path(shard).unlink(missing_ok=True)
        return True

    def _path(self, shard: ShardEntry) -> Path:
        return self.folder / f"{shard.sha256}.tar"

    def _fetch_ahead(self) -> None:
        """Fetch what is expected until there is nothing left. What goes wrong is met again where it is needed."""
        while True:
            with self._guard:
                if not self._expected:
                    self._fetchers -= 1
                    return
                shard = self._expected.pop(0)
            with contextlib.suppress(UserError):
                self._fetch(shard)

    def _fetch(self, shard: ShardEntry) -> None:
        """Have the file here, whole; another process or thread may bring it."""
        path = self._path(shard)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_name(f".{path.name}.lock")):
                if path.exists():
                    return
                _clear_leftovers(self.folder)
                partial = path.with_name(f".{path.name}.partial")
                try:
                    whole = (shard.bytes, shard.sha256)
                    fetch_file(f"{self.url}/{shard.file}", partial, whole, self._waits, self._silent_seconds)
                    with _alone(self.folder / ".room.lock"):
                        make_room(self.folder, self.limit - shard.bytes)
                        partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot hold {shard.file}: {error.strerror or error}") from None


def fetch_file(
    url: str,
    target: Path,
    expected: tuple[int, str] | None = None,
    waits: Sequence[float] = WAITS,
    silent_seconds: float = SILENT_SECONDS,
) -> None:
    """Copy a URL's file to a path. expected: its bytes and their sha256, if they are known.

    A cut or silent connection, a busy server and wrong bytes are tried again after each of `waits`, in seconds. Raises
    UserError where the file is not there or not given out, or where it does not come, or comes wrong, again and again;
    OSError from the disk.
    """
    wrong = 0
    system, path = file_system(url, **_time_limits(url, silent_seconds))
    for wait in [*waits, None]:
        try:
            system.get_file(path, str(target))
            trouble = _trouble(target, expected)
        except (FileNotFoundError, PermissionError) as error:
            if getattr(error, "filename", None) == str(target):
                raise
            refused = "is not given out to this user" if isinstance(error, PermissionError) else "is not there"
            raise UserError(f"{url}: {refused}: {error}; look at shards.path, or write the shards there") from None
        except Exception as error:  # each file system has errors of its own
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            trouble = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if getattr(error, "status", None) in _REFUSED or type(error).__name__ == "NoCredentialsError":
                raise UserError(f"{url}: is not given out to this user: {trouble}") from None
        else:
            if trouble is None:
                return
            wrong += 1
        if wait is None or wrong >= _WRONG_ANSWERS:
            raise UserError(f"{url}: {trouble}; look at the server, or write the shards there again")
        time.sleep(wait)


def read_remote_index(url: str, waits: Sequence[float] = WAITS, silent_seconds: float = SILENT_SECONDS) -> Index:
    """The index of the shards at a URL. Raises UserError where there is none, or one of another format."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "index.json"
        fetch_file(f"{url.rstrip('/')}/index.json", target, None, waits, silent_seconds)
        try:
            return read_index(folder)
        except UserError as error:
            raise UserError(str(error).replace(folder, url.rstrip("/"))) from None


def make_room(folder: Path, limit: int) -> None:
    """Throw away the files that were not used for the longest time until the others hold `limit` bytes at most."""
    files = []
    for path in folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # thrown away by another process
            status = path.stat()
            files.append((status.st_mtime_ns, path, status.st_size))
    total = sum(size for _, _, size in files)
    for _, path, size in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _trouble(path: Path, expected: tuple[int, str] | None) -> str | None:
    """In what a file is not as expected."""
    if expected is None:
        return None
    size, sha256 = expected
    if (got := path.stat().st_size) != size:
        return f"expected {size:,} bytes, got {got:,}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == sha256 else f"expected sha256 {sha256[:16]}..., got {found[:16]}..."


def _time_limits(url: str, silent_seconds: float) -> dict[str, Any]:
    """What a file system is told of how long it may wait; each has a way of its own."""
    if url.startswith(("http://", "https://")):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silent_seconds)
        return {"client_kwargs": {"timeout": limits}}
    if url.startswith("s3://"):
        return {"config_kwargs": {"connect_timeout": CONNECT_SECONDS, "read_timeout": silent_seconds}}
    return {}


def _clear_leftovers(folder: Path) -> None:
    """Remove what processes were fetching when they were killed: their locks are free."""
    for path in folder.glob(".*.lock"):
        if lock := _try_lock(path):
            path.with_suffix(".partial").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            lock.close()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for it; it is gone afterwards. Its holder's death frees it."""
    while (lock := _try_lock(path)) is None:
        time.sleep(_LOOK_SECONDS)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.close()


def _try_lock(path: Path) -> TextIO | None:
    """The lock file, held until it is closed; None where another holds it, or has just deleted it."""
    lock = path.open("a")
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock
    lock.close()
    return None
