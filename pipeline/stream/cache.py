"""Cache of shards from a URL, in a local folder of bounded size that all processes of a machine share.

A file is fetched to a temporary name, checked against its size and sha256, and renamed. Its name is its sha256, so
several runs, indexes and URLs can share a folder. When the folder is full, the least recently used files are removed.
One process fetches a file at a time: it holds a lock, which its death releases. Processes that have a removed file open
can still read it.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from pipeline.errors import UserError
from pipeline.shards.fetch import fetch_file
from pipeline.shards.index import ShardEntry, shard_name

FETCHERS = 2
"""Files prefetched concurrently, per process."""
_FILE = re.compile(r"[0-9a-f]{64}\.(tar|records)")
"""Names of the files in the cache: whole shards, and shards of which some records are there (record_cache.py). Other
files in its folder are left alone."""
_POLL_SECONDS = 0.05
"""Seconds between two attempts to lock a file that another process fetches."""


class ShardCache:
    """Shards at a URL, read through a bounded local folder."""

    def __init__(
        self,
        url: str,
        folder: Path,
        limit: int,
        fetch: Callable[[str, Path, tuple[int, str]], None] = fetch_file,
    ) -> None:
        """Create a cache. limit: maximum bytes of complete files in the folder; fetch: copies a URL to a path."""
        self.url = url.rstrip("/")
        self.folder = folder
        self.limit = limit
        self._fetch_file = fetch
        self._queue: list[ShardEntry] = []
        self._fetchers = 0
        self._queue_lock = threading.Lock()

    def __str__(self) -> str:
        return self.url

    def open(self, shard: ShardEntry, records: Sequence[int] = ()) -> BinaryIO:
        """Open the file of a shard; fetch it first if needed. Raises UserError if it cannot be fetched.

        records: that will be read; the file holds all.
        """
        del records
        path = self._path(shard)
        while True:
            with contextlib.suppress(FileNotFoundError):
                file = path.open("rb", buffering=0)
                if os.fstat(file.fileno()).st_size == shard.bytes:
                    note_use(file)
                    return file
                file.close()  # truncated: the disk was full, or a process crashed
                path.unlink(missing_ok=True)
            self._fetch(shard)

    def prefetch(self, shards: Sequence[ShardEntry]) -> None:
        """Prefetch shards in the background, in this order, up to half of the size limit."""
        totals = accumulate(shard.bytes for shard in shards)
        next_shards = [shard for shard, total in zip(shards, totals, strict=True) if total <= self.limit // 2]
        with self._queue_lock:
            self._queue = [shard for shard in next_shards if not self._path(shard).exists()]
            for _ in range(min(FETCHERS, len(self._queue)) - self._fetchers):
                self._fetchers += 1
                threading.Thread(target=self._fetch_queue, name="fetch shards", daemon=True).start()

    def prefetch_records(self, records: Sequence[tuple[ShardEntry, int]]) -> None:
        """Prefetch the shards of records that will be read soon."""
        self.prefetch(list({shard.file: shard for shard, _ in records}.values()))

    def discard(self, shard: ShardEntry) -> bool:
        """Remove the file of a corrupt shard, so that `open` fetches it again. Returns True: the URL has a copy."""
        self._path(shard).unlink(missing_ok=True)
        return True

    def _path(self, shard: ShardEntry) -> Path:
        return name_file(self.folder, self.url, shard, "tar")

    def _fetch_queue(self) -> None:
        """Fetch the files of the queue. Errors are ignored, because `open` raises them again."""
        while True:
            with self._queue_lock:
                if not self._queue:
                    self._fetchers -= 1
                    return
                shard = self._queue.pop(0)
            with contextlib.suppress(UserError):
                self._fetch(shard)

    def _fetch(self, shard: ShardEntry) -> None:
        """Fetch the file of a shard into the folder, unless another process or thread has done so."""
        path, name = self._path(shard), shard_name(shard)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with hold_lock_file(path.with_name(f".{path.name}.lock")):
                if path.exists():
                    return
                _clear_leftovers(self.folder)
                partial = path.with_name(f".{path.name}.partial")
                try:
                    self._fetch_file(f"{self.url}/{name}", partial, (shard.bytes, shard.sha256))
                    with hold_lock_file(self.folder / ".room.lock"):
                        make_room(self.folder, self.limit - shard.bytes)
                        partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot store {name}: {error.strerror or error}") from None


def name_file(folder: Path, url: str, shard: ShardEntry, suffix: str) -> Path:
    """Name the local file of a shard. Raises UserError for a hash of another form: it could leave the folder."""
    name = f"{shard.sha256}.{suffix}"
    if not _FILE.fullmatch(name):
        raise UserError(f"{url}: {shard.file!a}: sha256: expected 64 hex digits, got {shard.sha256!a}")
    return folder / name


def note_use(file: BinaryIO) -> None:
    """Set the time of access of a file to now. The time of change stays: it tells whether the content has changed."""
    status = os.fstat(file.fileno())
    with contextlib.suppress(OSError):
        os.utime(file.fileno(), ns=(time.time_ns(), status.st_mtime_ns))


def make_room(folder: Path, limit: int) -> None:
    """Remove the least recently used files until the others take at most `limit` bytes on the disk."""
    files = []
    for path in [*folder.glob("*.tar"), *folder.glob("*.records")]:
        if not _FILE.fullmatch(path.name):
            continue  # not of the cache
        with contextlib.suppress(FileNotFoundError):  # removed by another process
            status = path.stat()
            size = status.st_size if path.suffix == ".tar" else status.st_blocks * 512
            files.append((status.st_atime_ns, path, size))
    total = sum(size for _, _, size in files)
    for _, path, size in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _clear_leftovers(folder: Path) -> None:
    """Remove the partial files of killed processes, whose locks are free."""
    for path in folder.glob(".*.tar.lock"):
        if not _FILE.fullmatch(path.stem.removeprefix(".")):
            continue  # not of the cache
        with contextlib.suppress(Timeout), FileLock(path, blocking=False, fallback_to_soft=False):
            path.with_suffix(".partial").unlink(missing_ok=True)
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def hold_lock_file(path: Path) -> Iterator[None]:
    """Wait for a lock file, hold it during the block, and remove it afterwards."""
    # No soft lock on file systems without flock: it would remain after a killed holder.
    with FileLock(path, poll_interval=_POLL_SECONDS, fallback_to_soft=False):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
