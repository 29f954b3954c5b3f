"""A downloader for pooch that goes on where an earlier one was cut off. (pooch's own starts each file from zero.)"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from pipeline.errors import UserError

if TYPE_CHECKING:
    import requests

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each new try. Together a minute, which is also how long Zenodo counts against its rate limit."""

CONNECT_SECONDS = 15.0
SILENT_SECONDS = 60.0
"""A connection that is silent for so long is taken for cut."""

CHUNK_BYTES = 1 << 16
BUSY = (408, 429, 500, 502, 503, 504)
"""HTTP codes that may be gone a little later."""

# Range counts encoded bytes, so nothing may be encoded; Zenodo slows down the default agent of requests.
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "promoter-bert"}


class ResumingDownloader:
    """Fetches one file of known size for pooch, by way of a `.partial` file that outlives the process.

    The partial file is continued by an HTTP range, or begun anew where the server has none. Cut connections are tried
    again after each of `waits` (seconds), counted from the last byte that brought the file further than before.

    `show(bytes of the file that are here, what goes on)` is called with every chunk.
    """

    def __init__(
        self, partial: Path, size: int, show: Callable[[int, str], None], waits: Sequence[float] = WAITS
    ) -> None:
        self.fetched = 0
        """Bytes that came over the network."""
        self.pieced = False
        """Whether the file was put together from more than one answer: then it can be wrong where no server is."""
        self._partial = partial
        self._size = size
        self._show = show
        self._waits = waits
        self._answered = False

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        """Put the file of a URL, with so many bytes of whatever content, at a path. pooch checks the hash then.

        Raises UserError if the server cannot be reached, refuses, has a file of another size or is cut off too often,
        or if another process downloads the same file; OSError from the disk. What has come stays in the partial file.
        """
        # pooch makes its temporary file before it calls; it would be left behind by a killed process.
        Path(output_file).unlink(missing_ok=True)
        with self._partial.open("ab") as file:
            _lock(file, self._partial)
            if file.tell() > self._size:
                _empty(file)
            self.pieced = file.tell() > 0
            try:
                self._fill(url, file)
            finally:
                if file.tell() == 0:  # nothing to go on from
                    self._partial.unlink(missing_ok=True)
        self._show(self._size, "checking sha256")
        _second_name(self._partial, Path(output_file))

    def _fill(self, url: str, file: BinaryIO) -> None:
        import requests

        furthest = file.tell()
        waits = iter(self._waits)
        self._show(furthest, "")
        with requests.Session() as session:
            while True:
                trouble = "" if file.tell() == self._size else self._request(session, url, file)
                if file.tell() == self._size:
                    return
                if file.tell() > furthest:
                    furthest = file.tell()
                    waits = iter(self._waits)
                wait = next(waits, None)
                if wait is None:
                    raise UserError(
                        f"{url}: {trouble}; {file.tell():,} of {self._size:,} bytes are here, and the same command "
                        "goes on from there"
                    )
                self._show(file.tell(), f"{trouble}; trying again in {wait:g} s")
                time.sleep(wait)

    def _request(self, session: "requests.Session", url: str, file: BinaryIO) -> str:
        """Append what one request brings. Returns what to say if that is not the whole rest."""
        import requests

        have = file.tell()
        headers = HEADERS | ({"Range": f"bytes={have}-"} if have else {})
        try:
            with session.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENT_SECONDS)) as response:
                self._answered = True
                return self._take(url, response, file)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            # Before any answer it is rather the network or the name that is wrong, which waiting does not mend.
            if isinstance(error, requests.ConnectionError) and not self._answered:
                raise UserError(
                    f"no connection to {urlsplit(url).netloc}: {_reason(error)}; look at the network and its "
                    "proxy (HTTPS_PROXY), or name a mirror: --from URL"
                ) from None
            return "the connection was cut"
        except requests.RequestException as error:
            raise UserError(f"{url}: {error}") from None

    def _take(self, url: str, response: "requests.Response", file: BinaryIO) -> str:
        have = file.tell()
        answer = f"the server says {response.status_code} {response.reason}".rstrip()
        if response.status_code in BUSY:
            return answer
        if response.status_code not in (200, 206):
            raise UserError(f"{url}: {answer}; look whether the file is there, or name a mirror: --from URL")
        start, whole = _extent(response)
        # Before anything is thrown away: this may be the page of a login or an error, sent as if it were the file.
        if whole is not None and whole != self._size:
            raise UserError(f"{url}: expected a file of {self._size:,} bytes, got one of {whole:,}; it is not the same")
        if start != have:
            _empty(file)
        if start not in (0, have):
            return "the server sent another range than was asked for"
        self.pieced = start > 0
        for chunk in response.iter_content(CHUNK_BYTES):
            self.fetched += len(chunk)
            file.write(chunk[: self._size - file.tell()])
            self._show(file.tell(), "")
            if file.tell() == self._size:
                break
        return "the connection was cut"


def _extent(response: "requests.Response") -> tuple[int, int | None]:
    """First byte of an answer, and the bytes of the whole file if the server tells."""
    if response.status_code == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not told:
            return -1, None
        return int(told[1]), None if told[2] == "*" else int(told[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None


def _empty(file: BinaryIO) -> None:
    file.truncate(0)
    file.seek(0)


def _lock(file: BinaryIO, path: Path) -> None:
    """Two writers would mix their bytes. The lock ends with the file or the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is downloading to {path}; wait for it") from None


def _second_name(path: Path, name: Path) -> None:
    """pooch deletes what it is given when it is interrupted, so it gets a second name of the same bytes."""
    try:
        os.link(path, name)
    except OSError:  # no hard links on this file system
        path.replace(name)


def _reason(error: Exception) -> str:
    """The innermost words: requests wraps urllib3, which wraps the system's."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).rpartition("): ")[2].rpartition("connection: ")[2]
