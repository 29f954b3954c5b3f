"""Reading from a URL: bytes, requests and rate per host, from an HTTP server on this machine and from moto's S3.

    python -m bench.stream.remote FOLDER [--hosts 1,4,12] [--global-batch 1020] [--latency-ms 20] [--drops 0.02]

FOLDER: shards of one k whose promoters all have one length. Each host is one rank with an empty cache; the hosts run
one after the other. A single host fetches whole shards, several fetch the records of their lanes. The HTTP server waits
before each response, and cuts a share of the connections in the middle of the body.
"""

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from bench.measure import markdown
from pipeline.shards.fetch import fetch_file, fetch_index, fetch_range
from pipeline.stream.cache import ShardCache
from pipeline.stream.record_cache import RecordCache
from pipeline.stream.stream import RankSlice, ShardStream

SPLIT = "finetune/train"
WAITS = (0.1, 0.1, 0.2, 0.4)


@contextmanager
def serve(folder: Path, latency_s: float, drops: float) -> Iterator[str]:
    """Serve a folder over HTTP with byte ranges."""
    chance = random.Random(0)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path, wanted = folder / self.path.removeprefix("/"), self.headers["Range"]
            size = path.stat().st_size
            first, _, last = (wanted or f"0-{size - 1}").removeprefix("bytes=").partition("-")
            with path.open("rb") as file:
                file.seek(int(first))
                body = file.read(int(last) + 1 - int(first))
            time.sleep(latency_s)
            if wanted:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if chance.random() < drops:
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serve_s3(folder: Path) -> Iterator[str]:
    """Serve a folder by moto's S3."""
    import logging

    import s3fs  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    try:
        host, port = server.get_host_and_port()
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }  # fmt: skip
        files = s3fs.S3FileSystem()
        files.mkdir("shards")
        for path in folder.rglob("*"):
            if path.is_file():
                files.pipe(f"shards/k/{path.relative_to(folder)}", path.read_bytes())
        yield "s3://shards/k"
    finally:
        server.stop()


class Counter:
    """Fetch functions of both caches that count requests and received bytes."""

    def __init__(self) -> None:
        self.requests, self.bytes, self._lock = 0, 0, threading.Lock()

    def fetch_file(self, url: str, target: Path, expected: tuple[int, str]) -> None:
        """Fetch a file, see pipeline.shards.fetch."""
        fetch_file(url, target, expected, WAITS)
        self._add(expected[0])

    def fetch_range(self, url: str, start: int, size_bytes: int) -> bytes:
        """Fetch a byte range, see pipeline.shards.fetch."""
        data = fetch_range(url, start, size_bytes, WAITS)
        self._add(len(data))
        return data

    def _add(self, size_bytes: int) -> None:
        with self._lock:
            self.requests, self.bytes = self.requests + 1, self.bytes + size_bytes


def read(url: str, hosts: int, batch: int, sampled: int) -> list[str]:
    """Read an epoch on some of the hosts. Returns the row of the table."""
    index = fetch_index(url, WAITS)
    total, counts, rates, read_bytes = sum(s.bytes for s in index.splits[SPLIT]), [], [], []
    for host in range(min(hosts, sampled)):
        counter = Counter()
        with tempfile.TemporaryDirectory() as name:
            cache = (
                ShardCache(url, Path(name), 10**11, counter.fetch_file)
                if hosts == 1
                else RecordCache(url, Path(name), 10**11, counter.fetch_range)
            )
            stream = ShardStream(cache, index, SPLIT, batch, RankSlice(host, hosts), exchange=exchange_equal)
            began, rows = time.monotonic(), 0
            for step in stream.epoch(0):
                rows += len(step.micro_batches[0].id)
            rates.append(rows / (time.monotonic() - began))
            for thread in threading.enumerate():
                if thread.name.startswith("fetch "):
                    thread.join()
        counts.append(counter.requests)
        read_bytes.append(counter.bytes)
    return [
        f"{hosts}", f"{stream.lanes}", f"{max(read_bytes) / 1e6:,.0f}", f"{max(read_bytes) / total:.1%}",
        f"{max(counts):,}", f"{np.mean(rates):,.0f}",
    ]  # fmt: skip


def exchange_equal(problem: str | None, facts: object, counts: object) -> tuple[str | None, np.ndarray]:
    """Stand for the exchange of ranks whose promoters all have one length."""
    del counts
    assert isinstance(facts, np.ndarray), problem
    assert facts.min() == facts.max()
    return problem, facts[:1]


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--hosts", default="1,4,12", help="numbers of hosts; default: 1,4,12")
    cli.add_argument("--global-batch", type=int, default=1020, help="default: 1020")
    cli.add_argument("--latency-ms", type=float, default=20, help="default: 20")
    cli.add_argument("--drops", type=float, default=0.02, help="share of cut responses; default: 0.02")
    cli.add_argument("--sampled", type=int, default=3, help="hosts that run, of each number; default: 3")
    args = cli.parse_args()
    rows = []
    for name, served in (
        ("HTTP", serve(args.folder, args.latency_ms / 1000, args.drops)),
        ("S3 (moto)", serve_s3(args.folder)),
    ):
        with served as url:
            rows += [
                [name, *read(url, hosts, args.global_batch, args.sampled)] for hosts in map(int, args.hosts.split(","))
            ]
    print(markdown(["", "hosts", "lanes", "MB per host", "share", "requests per host", "samples/s per host"], rows))


if __name__ == "__main__":
    main()
