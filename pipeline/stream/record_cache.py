"""Cache of the records of shards at a URL that the ranks of this host need, fetched by byte range.

A shard is a sparse file of its full size, so a record lies where it lies in the shard. The first block of a record is
written last: a record that begins with zeros is not there yet. Several processes share the folder, whose least recently
used files are removed when it is full. The reader checks each record again, as it does for local shards.

A store that ignores byte ranges is noticed by the first response. Then whole shards are fetched (cache.py).
"""

import contextlib
import os
import tarfile
import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import UserError
from pipeline.shards.fetch import NoRangesError, fetch_range
from pipeline.shards.index import ShardEntry, shard_name
from pipeline.stream.cache import ShardCache, hold_lock_file, make_room, name_file, note_use

CONNECTIONS = 8
"""Records prefetched concurrently, per process."""
ROOM_BYTES = 1 << 26
"""A process looks for room in the folder whenever it has fetched so many bytes."""


class RecordCache:
    """Shards at a URL, of which the records that are read lie in a bounded local folder.

    limit: maximum bytes of the folder, which each process may exceed by ROOM_BYTES; fetch: reads a byte range of a URL.
    """

    def __init__(
        self, url: str, folder: Path, limit: int, fetch: Callable[[str, int, int], bytes] = fetch_range
    ) -> None:
        self.url = url.rstrip("/")
        self.folder = folder
        self.limit = limit
        self.whole: ShardCache | None = None
        """Cache of whole shards, after the store has ignored a byte range."""
        self._fetch_range = fetch
        self._queue: deque[tuple[ShardEntry, int]] = deque()
        self._fetchers = 0
        self._fetched_bytes = ROOM_BYTES
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return self.url

    def open(self, shard: ShardEntry, records: Sequence[int] = ()) -> BinaryIO:
        """Open the file of a shard, and fetch some of its records first if needed; other records may be missing.

        Raises UserError if a record cannot be fetched.
        """
        try:
            file = None if self.whole else self._open_records(shard, records)
        except NoRangesError:
            self.whole = ShardCache(self.url, self.folder, self.limit)
            file = None
        return file or self._open_whole(shard)

    def prefetch_records(self, records: Sequence[tuple[ShardEntry, int]]) -> None:
        """Prefetch records in the background, in this order, up to half of the size limit."""
        if self.whole is not None:
            self.whole.prefetch_records(records)
            return
        totals = accumulate(shard.records[number].bytes for shard, number in records)
        with self._lock:
            self._queue = deque(place for place, total in zip(records, totals, strict=True) if total <= self.limit // 2)
            for _ in range(min(CONNECTIONS, len(self._queue)) - self._fetchers):
                self._fetchers += 1
                threading.Thread(target=self._fetch_queue, name="fetch records", daemon=True).start()

    def discard(self, shard: ShardEntry) -> bool:
        """Remove the file of a shard with a corrupt record. Returns True: the URL has a copy."""
        if self.whole is not None:
            return self.whole.discard(shard)
        name_file(self.folder, self.url, shard, "records").unlink(missing_ok=True)
        return True

    def _open_whole(self, shard: ShardEntry) -> BinaryIO:
        assert self.whole is not None
        return self.whole.open(shard)

    def _open_records(self, shard: ShardEntry, records: Sequence[int]) -> BinaryIO:
        """Open the sparse file of a shard with some records. Raises NoRangesError, see fetch_range."""
        path, name = name_file(self.folder, self.url, shard, "records"), shard_name(shard)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            try:
                if os.fstat(file.fileno()).st_size != shard.bytes:
                    os.ftruncate(file.fileno(), shard.bytes)
                for number in records:
                    if not _is_there(file, shard, number):
                        with hold_lock_file(path.with_name(f".{path.name}.{number}.lock")):
                            if not _is_there(file, shard, number):
                                self._fetch(file, shard, number)
                note_use(file)
            except BaseException:
                file.close()
                raise
            return file
        except OSError as error:
            raise UserError(f"{self.folder}: cannot store {name}: {error.strerror or error}") from None

    def _fetch(self, file: BinaryIO, shard: ShardEntry, number: int) -> None:
        """Fetch a record into the sparse file of its shard."""
        entry = shard.records[number]
        url = f"{self.url}/{shard_name(shard)}"
        data = self._fetch_range(url, entry.offset, entry.bytes)
        if zlib.crc32(data) != entry.crc32:
            data = self._fetch_range(url, entry.offset, entry.bytes)  # the reader reports a second corrupt copy
        with self._lock:
            self._fetched_bytes += len(data)
            needs_room = self._fetched_bytes > ROOM_BYTES
            self._fetched_bytes = 0 if needs_room else self._fetched_bytes
        if needs_room:
            make_room(self.folder, self.limit - min(ROOM_BYTES, self.limit // 2))
        first = data[: tarfile.BLOCKSIZE]
        _write(file, data[len(first) :], entry.offset + len(first))
        _write(file, first, entry.offset)

    def _fetch_queue(self) -> None:
        """Fetch the records of the queue. Errors are ignored, because `open` raises them again."""
        while True:
            with self._lock:
                if not self._queue or self.whole is not None:
                    self._fetchers -= 1
                    return
                shard, number = self._queue.popleft()
            with contextlib.suppress(UserError, NoRangesError):
                self._open_records(shard, [number]).close()


def _is_there(file: BinaryIO, shard: ShardEntry, number: int) -> bool:
    """Return whether a record is in the sparse file of its shard: the name in its tar header is no zero."""
    return os.pread(file.fileno(), 1, shard.records[number].offset) != b"\0"


def _write(file: BinaryIO, data: bytes, offset: int) -> None:
    """Write all bytes at an offset. A disk that is nearly full takes some of them before it reports an error."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file.fileno(), rest, offset)
        rest, offset = rest[written:], offset + written
