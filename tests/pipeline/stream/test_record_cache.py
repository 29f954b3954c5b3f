"""Records from a local HTTP server by byte range, with dropped, silent, truncated and corrupt responses."""

import os
import threading
from functools import partial

import pytest

from pipeline.errors import UserError
from pipeline.shards.fetch import fetch_range
from pipeline.stream import record_cache
from pipeline.stream.batching import RankSlice
from pipeline.stream.record_cache import RecordCache
from pipeline.stream.stream import ShardStream
from tests.pipeline.file_server import Answers, serving
from tests.pipeline.stream.test_stream_properties import equal, joined
from tests.pipeline.stream.tiny_shards import SPLIT, write_tiny
from tests.pipeline.stream.worlds import run_world

pytestmark = pytest.mark.processes

SHAPE = [[40] * 6, [40] * 5 + [7]] * 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return folder, write_tiny(folder, SHAPE, 100)


@pytest.fixture
def server(tiny):
    files = {shard.file: (tiny[0] / shard.file).read_bytes() for shard in tiny[1].shards}
    with serving(Answers(files)) as answers:
        yield answers


def cached(url, tmp_path, limit=10**9, waits=(0.0, 0.0, 0.0)):
    return RecordCache(url, tmp_path / "cache", limit, partial(fetch_range, waits=waits, silent_seconds=5.0))


def steps_of(shards, index, epoch=0):
    return [joined([step]) for step in ShardStream(shards, index, SPLIT, 24, RankSlice(), 1).epoch(epoch)]


def wait_for_prefetches():
    for thread in threading.enumerate():
        if thread.name in ("fetch records", "fetch shards"):
            thread.join()


@pytest.fixture(autouse=True)
def four_lanes(monkeypatch):
    monkeypatch.setattr("pipeline.stream.stream.count_lanes", lambda *_: 4)
    monkeypatch.setattr("pipeline.stream.stream.PREFETCHED_RECORDS", 4)
    yield
    wait_for_prefetches()


def test_each_rank_fetches_the_records_of_its_lanes_once(tiny, server, tmp_path):
    folder, index = tiny
    expected = steps_of(folder, index)
    caches = [cached(server.url, tmp_path / str(rank)) for rank in range(4)]  # of four hosts

    def make(rank, rank_slice):
        return ShardStream(caches[rank], index, SPLIT, 24, rank_slice, 1)

    _, outcomes = run_world(make, 4, 1)
    assert equal(expected, [joined(steps) for steps in zip(*outcomes, strict=True)])
    wait_for_prefetches()
    records = [record for shard in index.shards for record in shard.records]
    # Records at the ends of lanes, and those of the short last batch, are fetched by two hosts or more.
    assert len(records) <= len(server.requests) <= len(records) + 2 * 4 + 4 * 2
    assert all(wanted and not wanted.endswith("-") for _, wanted in server.requests)
    for cache in caches:
        used = sum(path.stat().st_blocks * 512 for path in cache.folder.glob("*.records"))
        assert used < sum(shard.bytes for shard in index.shards) / 2
    seen = len(server.requests)
    run_world(make, 4, 1)  # the same epoch again needs no request
    wait_for_prefetches()
    assert len(server.requests) == seen


@pytest.mark.parametrize(
    "trouble",
    [
        {"cuts": [300, 0, 50]},
        {"statuses": [503, 429, 500]},
        {"flips": [700, 800]},
        {"ranges": False},
        {"statuses": [502], "cuts": [100], "flips": [700]},
    ],
)
def test_server_errors_are_retried(tiny, server, tmp_path, trouble):
    folder, index = tiny
    for name, value in trouble.items():
        setattr(server, name, value)
    cache = cached(server.url, tmp_path)
    assert equal(steps_of(cache, index), steps_of(folder, index))
    assert (cache.whole is not None) == ("ranges" in trouble)
    if cache.whole:
        assert len([path for path, wanted in server.requests if wanted is None]) == len(index.shards)


def test_repeatedly_corrupt_record_is_an_error(tiny, server, tmp_path):
    server.flips = [700] * 1000
    with pytest.raises(UserError, match=r"record \d+, bytes .*: expected CRC-32"):
        steps_of(cached(server.url, tmp_path), tiny[1])
    server.flips, server.statuses = [], [404] * 1000
    with pytest.raises(UserError, match=r"\.tar: no such file"):
        steps_of(cached(server.url, tmp_path / "other"), tiny[1])


def test_unfinished_and_corrupt_records_are_fetched_again(tiny, server, tmp_path):
    folder, index = tiny
    cache = cached(server.url, tmp_path)
    expected = steps_of(folder, index)
    assert equal(steps_of(cache, index), expected)
    wait_for_prefetches()
    path = sorted(cache.folder.glob("*.records"))[0]
    with path.open("r+b") as file:
        file.seek(700)
        file.write(b"corrupt")
    server.requests.clear()
    assert equal(steps_of(cache, index), expected)
    assert 0 < len(server.requests) <= 6 + 4  # of one shard


def test_record_is_written_whole_by_partial_writes(tiny, server, tmp_path, monkeypatch):
    """A disk that is nearly full takes some bytes of a write."""
    folder, index = tiny
    expected, write = steps_of(folder, index), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[: max(len(data) // 2, 1)], offset))
    assert equal(steps_of(cached(server.url, tmp_path), index), expected)
    assert len(server.requests) == sum(len(shard.records) for shard in index.shards)


def test_cache_keeps_its_limit(tiny, server, tmp_path, monkeypatch):
    folder, index = tiny
    largest = max(shard.bytes for shard in index.shards)
    monkeypatch.setattr(record_cache, "ROOM_BYTES", 4096)
    cache = cached(server.url, tmp_path, limit=4 * largest)
    for epoch in range(3):
        assert equal(steps_of(cache, index, epoch), steps_of(folder, index, epoch))
        wait_for_prefetches()
        used = sum(path.stat().st_blocks * 512 for path in cache.folder.iterdir())
        assert used <= 4 * largest + 4096 + 9 * largest // 6  # and one record of each connection


def test_ranks_of_a_host_share_records(tiny, server, tmp_path):
    folder, index = tiny
    caches = [cached(server.url, tmp_path) for _ in range(3)]
    make = lambda rank, rank_slice: ShardStream(caches[rank], index, SPLIT, 24, rank_slice, 1)  # noqa: E731
    _, outcomes = run_world(make, 3, 2)
    assert equal(steps_of(folder, index), [joined(steps) for steps in zip(*outcomes, strict=True)])
    wait_for_prefetches()
    assert len(server.requests) == sum(len(shard.records) for shard in index.shards)
    assert all(path.suffix == ".records" for path in (tmp_path / "cache").iterdir())
