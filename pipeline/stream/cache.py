"""Cache of shards from a URL, in a local folder of bounded size that all processes of a machine share.

A file is fetched to a temporary name, checked against its size and sha256, and renamed. Its name is its sha256, so
several runs, indexes and URLs may share a folder. When the folder is full, the least recently used files are removed.
A lock per file that is being fetched keeps processes apart; it ends with its holder. A removed file can be read to its
end by those who have it open.
"""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from pipeline.errors import UserError
from pipeline.shards.fetch import fetch_file
from pipeline.shards.index import ShardEntry, shard_name

FETCHERS = 2
"""Files prefetched side by side, per process."""
_FILE = re.compile(r"[0-9a-f]{64}\.tar")
"""Names of the files in the cache. Other files in its folder are left alone."""
_POLL_SECONDS = 0.05
"""Time between two tries to lock a file that another process fetches."""


class ShardCache:
    """Shards at a URL, read through a bounded local folder."""

    def __init__(
        self,
        url: str,
        folder: Path,
        limit: int,
        fetch: Callable[[str, Path, tuple[int, str]], None] = fetch_file,
    ) -> None:
        """limit: bytes that the folder holds at most, beside files being fetched; fetch: copies a URL to a path."""
        self.url = url.rstrip("/")
        self.folder = folder
        self.limit = limit
        self._fetch_file = fetch
        self._queue: list[ShardEntry] = []
        self._fetchers = 0
        self._queue_lock = threading.Lock()

    def __str__(self) -> str:
        return self.url

    def open(self, shard: ShardEntry) -> BinaryIO:
        """Open the file, fetching it first if needed. Raises UserError if it cannot be fetched."""
        path = self._path(shard)
        while True:
            with contextlib.suppress(FileNotFoundError):
                file = path.open("rb", buffering=0)
                if os.fstat(file.fileno()).st_size == shard.bytes:
                    with contextlib.suppress(OSError):  # removed at this moment; it stays open
                        os.utime(path)
                    return file
                file.close()  # truncated by a full disk or a crash
                path.unlink(missing_ok=True)
            self._fetch(shard)

    def prefetch(self, shards: Sequence[ShardEntry]) -> None:
        """Prefetch these in the background, in this order, as far as half of the folder holds them."""
        totals = accumulate(shard.bytes for shard in shards)
        near = [shard for shard, total in zip(shards, totals, strict=True) if total <= self.limit // 2]
        with self._queue_lock:
            self._queue = [shard for shard in near if not self._path(shard).exists()]
            for _ in range(min(FETCHERS, len(self._queue)) - self._fetchers):
                self._fetchers += 1
                threading.Thread(target=self._fetch_queue, name="fetch shards", daemon=True).start()

    def discard(self, shard: ShardEntry) -> bool:
        """Remove the file, so that it is fetched again when it is opened."""
        self._path(shard).unlink(missing_ok=True)
        return True

    def _path(self, shard: ShardEntry) -> Path:
        """Name the local file of a shard. Raises UserError for a hash of another form: it could leave the folder."""
        name = f"{shard.sha256}.tar"
        if not _FILE.fullmatch(name):
            raise UserError(f"{self.url}: {shard.file!a}: sha256: expected 64 hex digits, got {shard.sha256!a}")
        return self.folder / name

    def _fetch_queue(self) -> None:
        """Fetch the files of the queue. Errors are ignored here: they recur when the file is opened."""
        while True:
            with self._queue_lock:
                if not self._queue:
                    self._fetchers -= 1
                    return
                shard = self._queue.pop(0)
            with contextlib.suppress(UserError):
                self._fetch(shard)

    def _fetch(self, shard: ShardEntry) -> None:
        """Fetch the file into the folder, unless another process or thread does."""
        path, name = self._path(shard), shard_name(shard)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_name(f".{path.name}.lock")):
                if path.exists():
                    return
                _clear_leftovers(self.folder)
                partial = path.with_name(f".{path.name}.partial")
                try:
                    self._fetch_file(f"{self.url}/{name}", partial, (shard.bytes, shard.sha256))
                    with _locked(self.folder / ".room.lock"):
                        make_room(self.folder, self.limit - shard.bytes)
                        partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot store {name}: {error.strerror or error}") from None


def make_room(folder: Path, limit: int) -> None:
    """Remove the least recently used files until the others hold `limit` bytes at most."""
    files = []
    for path in folder.glob("*.tar"):
        if not _FILE.fullmatch(path.name):
            continue  # not of the cache
        with contextlib.suppress(FileNotFoundError):  # removed by another process
            status = path.stat()
            files.append((status.st_mtime_ns, path, status.st_size))
    total = sum(size for _, _, size in files)
    for _, path, size in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _clear_leftovers(folder: Path) -> None:
    """Remove the partial files of killed processes: their locks are free."""
    for path in folder.glob(".*.tar.lock"):
        if not _FILE.fullmatch(path.stem.removeprefix(".")):
            continue  # not of the cache
        with contextlib.suppress(Timeout), FileLock(path, blocking=False, fallback_to_soft=False):
            path.with_suffix(".partial").unlink(missing_ok=True)
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for it, and remove it afterwards. The death of its holder releases it."""
    # No soft lock on file systems without flock: it would outlive a killed holder.
    with FileLock(path, poll_interval=_POLL_SECONDS, fallback_to_soft=False):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
