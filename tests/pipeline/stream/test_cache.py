"""Shards from local servers: HTTP with dropped, silent, truncated and corrupt responses, and S3."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from pipeline.errors import UserError
from pipeline.shards.fetch import fetch_file, fetch_index
from pipeline.shards.index import serialize_index
from pipeline.stream.cache import ShardCache, make_room
from pipeline.stream.stream import RankSlice, ShardStream
from tests.conftest import ROOT
from tests.pipeline.file_server import Answers, serving
from tests.pipeline.stream.tiny_shards import SPLIT, write_tiny

pytestmark = pytest.mark.processes

SHAPE = [[5, 7, 3], [4, 4, 4], [9, 2], [6, 6, 1]]
FILES = [f"{SPLIT}-{number:06d}.tar" for number in range(4)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return folder, write_tiny(folder, SHAPE)


@pytest.fixture
def server(tiny):
    with serving(Answers({name: (tiny[0] / name).read_bytes() for name in FILES})) as answers:
        yield answers


def cached(url, tmp_path, limit=10**9, waits=(0.0, 0.0, 0.0), silent_seconds=30.0):
    fetch = partial(fetch_file, waits=waits, silent_seconds=silent_seconds)
    return ShardCache(url, tmp_path / "cache", limit, fetch)


def ids(shards, index, epoch=0, batch=7):
    stream = ShardStream(shards, index, SPLIT, batch, RankSlice(), seed=1)
    return [step.micro_batches[0].id.tolist() for step in stream.epoch(epoch)]


def list_requests(server):
    return [path.removeprefix("/files/") for path, _ in server.requests]


def names_in(folder):
    """List the files of a folder after all prefetches have ended."""
    for thread in threading.enumerate():
        if thread.name == "fetch shards":
            thread.join()
    return sorted(path.name for path in folder.iterdir())


def test_batches_equal_those_of_a_folder_and_each_file_is_fetched_once(tiny, server, tmp_path):
    folder, index = tiny
    cache = cached(server.url, tmp_path)
    for epoch in (0, 1):
        assert ids(cache, index, epoch) == ids(folder, index, epoch)
    assert sorted(list_requests(server)) == FILES
    assert names_in(cache.folder) == sorted(f"{shard.sha256}.tar" for shard in index.splits[SPLIT])


@pytest.mark.parametrize(
    "trouble",
    [
        {"cuts": [3000, 0, 500]},
        {"statuses": [503, 429, 500]},
        {"flips": [2000]},
        {"cuts": [2000], "says_length": False},
        {"statuses": [502], "cuts": [100], "flips": [700]},
    ],
)
def test_server_errors_are_retried(tiny, server, tmp_path, trouble):
    folder, index = tiny
    for name, value in trouble.items():
        setattr(server, name, value)
    cache = cached(server.url, tmp_path)
    assert ids(cache, index) == ids(folder, index)
    assert len(server.requests) > 4
    assert len(names_in(cache.folder)) == 4


def test_silent_connection_times_out(tmp_path):
    index = write_tiny(tmp_path / "big", [[400] * 3], longest=400)
    body = (tmp_path / "big" / FILES[0]).read_bytes()
    assert len(body) > 1 << 17  # more than the chunk after which the server falls silent
    with serving(Answers({FILES[0]: body}, stalls=[20.0])) as server:
        began = time.monotonic()
        result = ids(cached(server.url, tmp_path, silent_seconds=0.5), index)
        assert time.monotonic() - began < 15
        assert result == ids(tmp_path / "big", index)
        assert len(server.requests) == 2


def test_repeatedly_corrupt_file_is_an_error(tiny, server, tmp_path):
    server.flips = [700] * 20
    index = tiny[1]
    with pytest.raises(UserError, match=r"http://.*\.tar: expected sha256 \w{16}\.\.\., got \w{16}"):
        ids(cached(server.url, tmp_path), index)
    assert names_in(tmp_path / "cache") == []
    server.flips, server.says_length, server.cuts = [], False, [600] * 20
    with pytest.raises(UserError, match=r"http://.*\.tar: expected [\d,]+ bytes, got 600"):
        ids(cached(server.url, tmp_path), index)
    assert names_in(tmp_path / "cache") == []


def test_missing_file_is_named_without_retries(tiny, server, tmp_path):
    del server.files[FILES[2]]
    with pytest.raises(UserError, match=r"finetune/train-000002\.tar: no such file"):
        ids(cached(server.url, tmp_path, waits=(60.0,)), tiny[1])
    server.statuses = [403]
    with pytest.raises(UserError, match=r"http://.*: access denied: .*403"):
        fetch_index(server.url, waits=(60.0,))
    server.statuses = [503] * 50
    with pytest.raises(UserError, match=r"http://.*503"):
        ids(cached(server.url, tmp_path), tiny[1])


def test_server_that_cannot_be_reached_is_an_error(tiny, tmp_path):
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/.*Cannot connect"):
        ids(cached("http://127.0.0.1:9", tmp_path), tiny[1])


def test_cache_keeps_its_limit_and_the_recently_used_files(tiny, server, tmp_path):
    folder, index = tiny
    shards = index.splits[SPLIT]
    limit = 2 * max(shard.bytes for shard in shards) + 100
    cache = cached(server.url, tmp_path, limit)
    for epoch in range(3):
        for step, expected in zip(
            ShardStream(cache, index, SPLIT, 3, RankSlice(), 1).epoch(epoch), ids(folder, index, epoch, 3), strict=True
        ):
            assert step.micro_batches[0].id.tolist() == expected
            assert sum(path.stat().st_size for path in cache.folder.glob("*.tar")) <= limit
    server.requests.clear()
    for number in (0, 1, 0, 2, 0, 3, 0):
        cache.open(shards[number]).close()
        time.sleep(0.002)  # file systems tell times apart by their clock's ticks
    assert list_requests(server).count(FILES[0]) <= 1
    assert f"{shards[0].sha256}.tar" in names_in(cache.folder)


def test_removed_file_stays_readable(tiny, server, tmp_path):
    folder, index = tiny
    cache = cached(server.url, tmp_path)
    with cache.open(index.splits[SPLIT][0]) as file:
        make_room(cache.folder, 0)
        assert names_in(cache.folder) == []
        assert file.read() == (folder / FILES[0]).read_bytes()
    assert ids(cache, index) == ids(folder, index)


def test_corrupt_cached_file_is_fetched_again(tiny, server, tmp_path):
    folder, index = tiny
    cache = cached(server.url, tmp_path)
    ids(cache, index)
    for path, damage in zip(sorted(cache.folder.iterdir()), ("flip", "cut", "empty", None), strict=True):
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        if damage is not None:
            path.write_bytes({"flip": data, "cut": data[:900], "empty": b""}[damage])
    server.requests.clear()
    assert ids(cache, index) == ids(folder, index)
    assert len(server.requests) == 3


def test_several_readers_fetch_each_file_once(tiny, server, tmp_path):
    """Threads with one cache each, like the ranks of a machine; lock files separate them."""
    folder, index = tiny
    server.stalls = [0.05] * 8
    result = []
    threads = [
        threading.Thread(target=lambda: result.append(ids(cached(server.url, tmp_path), index))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert result == [ids(folder, index)] * 4
    assert sorted(list_requests(server)) == FILES


CHILD = """
import sys
from pathlib import Path
from pipeline.shards.index import read_index
from pipeline.shards.fetch import fetch_index
from pipeline.stream.cache import ShardCache
from pipeline.stream.stream import RankSlice, ShardStream
url, cache, rank = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
index = fetch_index(url)
stream = ShardStream(ShardCache(url, cache, 10**9), index, "finetune/train", 7, RankSlice(rank, 2), seed=1)
print([i for step in stream.epoch(0) for b in step.micro_batches for i in b.id.tolist()], flush=True)
"""


def child(url, cache, rank):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(cache), str(rank)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_ranks_share_a_cache_after_one_is_killed(tiny, server, tmp_path):
    folder, index = tiny
    server.files["index.json"] = serialize_index(index).encode()
    assert fetch_index(server.url) == index
    server.requests.clear()
    # The index, then a file that never ends.
    with serving(Answers(server.files, stalls=[0.0, 600.0], cuts=[10**9, 1000])) as silent:
        killed = child(silent.url, tmp_path / "cache", 0)
        while not list((tmp_path / "cache").glob(".*.partial")) or len(list_requests(silent)) < 2:
            time.sleep(0.01)
            assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    whole = len(list((tmp_path / "cache").glob("*.tar")))
    ranks = [child(server.url, tmp_path / "cache", rank) for rank in range(2)]
    result = [process.communicate(timeout=60)[0] for process in ranks]
    together = sorted(number for line in result for number in eval(line))
    assert together == sorted(number for batch in ids(folder, index) for number in batch)
    requests = list_requests(server)
    assert requests.count("index.json") == 2
    assert len(requests) == len(set(requests)) + 1 == 2 + 4 - whole
    assert all(name.endswith(".tar") for name in names_in(tmp_path / "cache"))


def test_next_files_are_prefetched(tiny, server, tmp_path):
    index = tiny[1]
    shards = index.splits[SPLIT]
    cache = cached(server.url, tmp_path)
    cache.prefetch(shards[1:3])
    assert names_in(cache.folder) == sorted(f"{shard.sha256}.tar" for shard in shards[1:3])
    assert sorted(list_requests(server)) == FILES[1:3]
    small = cached(server.url, tmp_path / "small", shards[1].bytes * 2 + 1)
    small.prefetch(shards[1:])  # half of the folder holds one
    small.open(shards[1]).close()
    assert [path.name for path in small.folder.glob("*.tar")] == [f"{shards[1].sha256}.tar"]


def test_missing_index_and_index_of_another_format(server, tmp_path):
    with pytest.raises(UserError, match=r"http://.*/index\.json: no such file"):
        fetch_index(server.url, ())
    server.files["index.json"] = b'{"format": 99}'
    with pytest.raises(UserError, match=r"http://.*/index\.json: expected format 2, got 99"):
        fetch_index(server.url, ())


def test_shards_from_s3(tiny, tmp_path, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    folder, index = tiny
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        files = s3fs.S3FileSystem()
        files.mkdir("shards")
        for name in FILES:
            files.pipe(f"shards/k3/{name}", (folder / name).read_bytes())
        cache = cached("s3://shards/k3", tmp_path)
        assert ids(cache, index) == ids(folder, index)
        files.pipe(f"shards/k3/{FILES[1]}", (folder / FILES[0]).read_bytes())
        make_room(cache.folder, 0)
        with pytest.raises(UserError, match=r"s3://shards/k3/finetune/train-000001\.tar: expected sha256"):
            ids(cache, index)
        files.rm(f"shards/k3/{FILES[1]}")
        with pytest.raises(UserError, match=r"s3://shards/k3/finetune/train-000001\.tar: no such file"):
            ids(cache, index)
    finally:
        server.stop()
