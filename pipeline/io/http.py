"""HTTP download of one file of known size and sha256. Interrupted downloads resume."""

import fcntl
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from pipeline.errors import UserError

if TYPE_CHECKING:
    import requests

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each retry. They add up to a minute, the period of Zenodo's rate limit."""

CONNECT_SECONDS = 15.0
"""Timeout of a connection attempt."""
SILENT_SECONDS = 60.0
"""Timeout of a connection that receives no bytes."""

CHUNK_BYTES = 1 << 16
RETRY_STATUS = (408, 429, 500, 502, 503, 504)
"""HTTP status codes of temporary errors."""

# Range counts encoded bytes, so the content must not be encoded. Zenodo throttles the default user agent of requests.
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "promoter-bert"}

_CUT = "the connection was cut"


def partial_path(path: Path) -> Path:
    """Name the file of an unfinished download."""
    return path.with_name(f"{path.name}.partial")


def file_sha256(path: Path) -> str:
    """Compute the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download_file(
    url: str,
    path: Path,
    size_bytes: int,
    sha256: str,
    on_progress: Callable[[int, str], None],
    waits: Sequence[float] = WAITS,
) -> int:
    """Download a file of known size and sha256 to `path`. Returns the bytes received by this call.

    The bytes go to `path`.partial, which outlives the process: the next call resumes from it. A broken connection is
    retried after each of `waits` (seconds), counted from the last byte received. on_progress: called per chunk with
    the bytes received in all calls, and a note.

    Raises UserError if there is no connection, if the server refuses or has another file, for a wrong hash, a full
    disk, or another process that downloads the same file.
    """
    partial = partial_path(path)
    try:
        with partial.open("ab") as file:
            # Two writers would mix their bytes. Closing the file, or the end of the process, releases the lock.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            transfer = _Transfer(url, size_bytes, file, on_progress, waits)
            try:
                _complete(transfer, partial, sha256)
                partial.replace(path)
            finally:
                if file.tell() == 0:  # nothing to resume from
                    partial.unlink(missing_ok=True)
    except BlockingIOError:
        raise UserError(f"{partial}: another process is downloading to it; fix: wait for it") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; the bytes received so far are in {partial}") from None
    return transfer.received_bytes


def _complete(transfer: "_Transfer", partial: Path, sha256: str) -> None:
    """Complete the partial file. Raises UserError and empties it if its hash is wrong."""
    for _ in range(2):
        transfer.fill()
        transfer.on_progress(transfer.size_bytes, "checking sha256")
        received = file_sha256(partial)
        if received == sha256:
            return
        _empty(transfer.file)
        if not transfer.has_parts:  # one complete response was wrong, so the next would be, too
            break
        transfer.on_progress(0, "wrong hash: the file may have changed during the download; downloading it again")
    raise UserError(
        f"{transfer.url}: wrong hash, download deleted; expected sha256 {sha256}, got {received}; "
        "fix: use another mirror: --from URL"
    )


@dataclass
class _Transfer:
    """Transfer of one URL to an open partial file."""

    url: str
    size_bytes: int
    file: BinaryIO
    on_progress: Callable[[int, str], None]
    waits: Sequence[float]
    received_bytes: int = 0
    has_parts: bool = False
    """Whether the file consists of parts of several responses."""
    has_response: bool = False
    """Whether the server has responded."""

    def fill(self) -> None:
        """Request the missing bytes until the file has its size. Raises UserError when all retries failed."""
        import requests

        if self.file.tell() > self.size_bytes:
            _empty(self.file)
        file_bytes = most_bytes = self.file.tell()
        self.has_parts = file_bytes > 0
        waits = iter(self.waits)
        self.on_progress(file_bytes, "")
        with requests.Session() as session:
            while file_bytes < self.size_bytes:
                problem = self._request(session)
                file_bytes = self.file.tell()
                if file_bytes > most_bytes:
                    most_bytes, waits = file_bytes, iter(self.waits)
                if file_bytes < self.size_bytes:
                    wait_s = next(waits, None)
                    if wait_s is None:
                        raise UserError(
                            f"{self.url}: {problem}; expected {self.size_bytes:,} bytes, got {file_bytes:,}; "
                            "fix: run the same command to resume"
                        )
                    self.on_progress(file_bytes, f"{problem}; retrying in {wait_s:g} s")
                    time.sleep(wait_s)
        self.file.flush()

    def _request(self, session: "requests.Session") -> str:
        """Append the response to one request. Returns the problem if bytes are still missing."""
        import requests

        file_bytes = self.file.tell()
        headers = HEADERS | ({"Range": f"bytes={file_bytes}-"} if file_bytes else {})
        timeout = (CONNECT_SECONDS, SILENT_SECONDS)
        try:
            with session.get(self.url, headers=headers, stream=True, timeout=timeout) as response:
                self.has_response = True
                return self._receive(response)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            # Without any response, the network or the host name is wrong: a retry does not help.
            if isinstance(error, requests.ConnectionError) and not self.has_response:
                raise UserError(
                    f"no connection to {urlsplit(self.url).netloc}: {_innermost(error)}; fix: check the network and "
                    "its proxy (HTTPS_PROXY), or use a mirror: --from URL"
                ) from None
            return _CUT
        except requests.RequestException as error:
            raise UserError(f"{self.url}: {error}") from None

    def _receive(self, response: "requests.Response") -> str:
        status = f"the server answered {response.status_code} {response.reason}".rstrip()
        if response.status_code in RETRY_STATUS:
            return status
        if response.status_code not in (200, 206):
            raise UserError(f"{self.url}: {status}; fix: check that the file exists, or use a mirror: --from URL")
        start, whole_bytes = _extent(response)
        # Checked before anything is deleted: the response may be a login or error page.
        if whole_bytes is not None and whole_bytes != self.size_bytes:
            raise UserError(
                f"{self.url}: another file; expected {self.size_bytes:,} bytes, got {whole_bytes:,}; "
                "fix: use another mirror: --from URL"
            )
        file_bytes = self.file.tell()
        if start != file_bytes:
            _empty(self.file)
        if start not in (0, file_bytes):
            return "the server sent another range than requested"
        self.has_parts = start > 0
        for chunk in response.iter_content(CHUNK_BYTES):
            self.received_bytes += len(chunk)
            self.file.write(chunk[: self.size_bytes - self.file.tell()])
            self.on_progress(self.file.tell(), "")
            if self.file.tell() == self.size_bytes:
                break
        return _CUT


def _extent(response: "requests.Response") -> tuple[int, int | None]:
    """Read the position of the first byte of a response, and the size of the whole file if the server states it."""
    if response.status_code == 206:
        extent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not extent:
            return -1, None
        return int(extent[1]), None if extent[2] == "*" else int(extent[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None


def _empty(file: BinaryIO) -> None:
    file.truncate(0)
    file.seek(0)


def _innermost(error: Exception) -> str:
    """Extract the innermost message: requests wraps urllib3, which wraps the error of the system."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).rpartition("): ")[2].rpartition("connection: ")[2]
