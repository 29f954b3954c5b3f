"""A local file server with errors on request, which records its requests."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = 1 << 16


@dataclass
class Answers:
    """Responses of the server. Each request takes one item of every list; empty lists give valid responses."""

    files: dict[str, bytes]
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    """Bytes of the body after which the connection is closed."""
    stalls: list[float] = field(default_factory=list)
    """Seconds of silence after the first chunk."""
    says_length: bool = True
    flips: list[int] = field(default_factory=list)
    """Index of a byte of the body that is corrupted; -1 for none."""
    shift: int = 0
    """Added to the first byte of each range."""
    chunk_seconds: float = 0.0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of each request."""
    url: str = ""


@contextmanager
def serving(answers: Answers) -> Iterator[Answers]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            try:
                _answer(self, answers)
            except ConnectionError:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_port}/files"
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, answers: Answers) -> None:
    requested = handler.headers["Range"]
    answers.requests.append((handler.path, requested))
    body = answers.files.get(handler.path.removeprefix("/files/").removesuffix("?download=1"))
    status = answers.statuses.pop(0) if answers.statuses else 200 if body is not None else 404
    if status != 200 or body is None:
        handler.send_error(status)
        return
    first, _, last = (requested or "").removeprefix("bytes=").partition("-")
    start = int(first) + answers.shift if requested and answers.ranges else None
    if body is not None and last and answers.ranges:
        body = body[: int(last) + 1]
    if start is not None and start >= len(body):
        handler.send_error(416)
        return
    handler.send_response(200 if start is None else 206)
    if start is not None:
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    rest = body[start or 0 :]
    if answers.says_length:
        handler.send_header("Content-Length", str(len(rest)))
    handler.end_headers()
    if answers.flips and (place := answers.flips.pop(0)) >= 0:
        rest = rest[:place] + bytes([rest[place] ^ 1]) + rest[place + 1 :]
    rest = rest[: answers.cuts.pop(0)] if answers.cuts else rest
    stall = answers.stalls.pop(0) if answers.stalls else 0.0
    for at in range(0, len(rest), CHUNK):
        handler.wfile.write(rest[at : at + CHUNK])
        time.sleep(stall if at == 0 else answers.chunk_seconds)
