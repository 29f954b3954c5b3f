"""Untrusted indexes and shards: read correctly, or an error that names the field; no file outside is touched."""

import copy
import json
import re
import shutil
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.io import remote
from pipeline.shards import fetch
from pipeline.shards.fetch import fetch_file, fetch_index
from pipeline.shards.index import parse_index, parse_shard_entry, read_index
from pipeline.shards.preview import peek
from pipeline.shards.records import read_record
from pipeline.shards.store import FolderStore
from pipeline.shards.verify import verify_shards
from pipeline.stream.cache import ShardCache
from pipeline.stream.sources import LocalShards
from pipeline.stream.stream import RankSlice, ShardStream
from tests.pipeline.file_server import Answers, serving
from tests.pipeline.shards.shard_files import signed
from tests.pipeline.stream.tiny_shards import SPLIT, write_tiny

SHAPE = [[5, 7, 3], [4, 4], [9]]
FIELD = re.compile(
    r"index\.json: "
    r"(expected (format|a JSON object)|not JSON|[a-z0-9_]+(\.[\w/]+|\[.*?\])*: (expected|missing|the file))"
)
"""Start of an error that names a field of the index."""


def promoters(shards, index):
    """Read all promoters of all splits: tokens and label by id."""
    return {
        int(number): (batch.tokens[row, : batch.lengths[row]].tolist(), float(batch.expression[row]))
        for split in index.splits
        for step in ShardStream(shards, index, split, 7, RankSlice(), seed=1).epoch(0)
        for batch in step.micro_batches
        for row, number in enumerate(batch.id)
    }


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Serve shards over HTTP, beside a home folder whose files must not change."""
    root = tmp_path_factory.mktemp("site")
    index = write_tiny(root / "home" / "shards", SHAPE)
    for name in ("backup.tar", "secret.tar", f"{'a' * 64}.tar"):
        (root / "home" / name).write_bytes(b"precious")
    files = {shard.file: (root / "home/shards" / shard.file).read_bytes() for shard in index.shards}
    files |= {"../secret.tar": b"secret", "secret.tar": b"secret"}
    with serving(Answers(files)) as server:
        yield root, index, server


def cache_of(server, folder, limit=10**9):
    return ShardCache(server.url, folder, limit, partial(fetch_file, waits=(), silent_seconds=5.0))


def use(site, data):
    """Read an index by every reader, from a folder and from the server. Returns the promoters that were read."""
    root, _, server = site
    folder, cache = root / "home" / "shards", root / "cache"
    server.files["index.json"] = data
    (folder / "index.json").write_bytes(data)
    before = contents(root / "home")
    server.requests.clear()
    outcomes = []

    def attempt(read):
        try:
            outcomes.append(read())
        except UserError as error:
            outcomes.append(str(error))

    attempt(lambda: promoters(folder, read_index(folder)))
    attempt(lambda: promoters(cache_of(server, cache), fetch_index(server.url, ())))
    attempt(lambda: verify_shards(folder) and None)
    attempt(lambda: peek(folder, read_index(folder), promoters=3) and None)
    assert contents(root / "home") == before
    assert {path.name for path in root.iterdir()} <= {"home", "cache"}
    allowed = re.compile(r"/files/(index\.json|finetune/train-\d{6}\.tar)")
    assert all(allowed.fullmatch(path) for path, _ in server.requests)
    if cache.exists():
        assert all(re.fullmatch(r"[0-9a-f]{64}\.tar", path.name) for path in cache.iterdir())
    return outcomes


def mutable_places(values, path=()):
    """Iterate over the paths of all values in JSON."""
    yield path
    children = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for name, child in children:
        yield from mutable_places(child, (*path, name))


hostile = st.sampled_from(
    [
        "/home/backup", "../secret", "../../home/backup", "../secret.tar", "finetune/train-000000.tar\n", "A" * 64,
        "a" * 64, "a" * 64 + "\n", -1, 0, 1, True, False, 1.0, 3.0, 2**31, 2**40, 2**53, 2**63, 2**64, 10**30, 1e300,
        "1",
        float("nan"), float("inf"), None, [], {}, "", "\ud800", "uint16", "zstd", "N", 512, 1024, -512,
        "finetune/train", "finetune/train-000001.tar", "pretrain/test-000000.tar", "\x1b[31m",
    ]
)  # fmt: skip
json_values = st.recursive(
    hostile | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutations(draw, values):
    """Make up to three changes: replace a value, remove or add a field, shuffle, double or cut a list."""
    values = copy.deepcopy(values)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(mutable_places(values))[1:] or [()]))
        if not place:
            return draw(json_values)
        parent = values
        for step in place[:-1]:
            parent = parent[step]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "list", "add"]))
        child = parent[place[-1]]
        if kind == "list" and isinstance(child, list) and child:
            cut = draw(st.integers(0, len(child)))
            parent[place[-1]] = draw(
                st.sampled_from([child[::-1], child + child, child[:cut], child[cut:], child[1:] + child[:1]])
            )
        elif kind == "remove":
            del parent[place[-1]]
        elif kind == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["sha256", "../x", "pretrain/test", "finetune/valid"]))] = child
        else:
            parent[place[-1]] = draw(json_values)
    return values


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.booleans())
def test_mutated_index_gives_equal_promoters_or_an_error_naming_the_field(site, data, fits):
    root, index, _ = site
    values = data.draw(mutations(asdict(index)))
    sha256 = json.loads(signed(asdict(index)))["sha256"]
    changed = (
        signed(values) if fits or not isinstance(values, dict) else json.dumps({"sha256": sha256, **values}).encode()
    )
    everything = promoters(root / "home" / "shards", index)
    for outcome in use(site, changed):
        if isinstance(outcome, str):
            # Fields are named; hashes, sizes and counts that only the bytes can refute name the shard or record.
            assert FIELD.search(outcome) or re.search(r"finetune/train-\d{6}\.tar: ", outcome), outcome
            assert outcome.isprintable()
        elif outcome is not None:
            assert outcome.items() <= everything.items()


@settings(deadline=None, max_examples=100)
@given(
    st.binary(max_size=50) | st.text(max_size=50).map(str.encode) | json_values.map(lambda v: json.dumps(v).encode())
)
def test_arbitrary_bytes_as_index(data):
    with pytest.raises(UserError, match=FIELD):
        parse_index(data, "index.json")


@pytest.mark.parametrize("data", [b"[" * 10**6, b'{"format": 2, "k": ' + b"[" * 900 + b"]" * 900 + b"}", b"9" * 10**5])
def test_deep_and_long_json_as_index(data):
    with pytest.raises(UserError, match=FIELD):
        parse_index(data, "index.json")


ATTACKS = [
    (("sha256",), lambda root: str(root / "home" / "backup"), r"\[0\]\.sha256: expected 64 hex digits, got '/"),
    (("sha256",), lambda _: "../home/backup", r"\[0\]\.sha256: expected 64 hex digits, got '\.\./home"),
    (("file",), lambda _: "../secret.tar", r"\[0\]\.file: expected .*, got '\.\./secret\.tar'"),
    (("file",), lambda root: str(root / "home" / "secret.tar"), r"\[0\]\.file: expected .*, got '/"),
    (("file",), lambda _: "file:///etc/passwd", r"\[0\]\.file: expected .*, got 'file:///etc/passwd'"),
    (("rows",), lambda _: True, r"\[0\]\.rows: expected an integer of at least 1, got True"),
    (("rows",), lambda _: 15.0, r"\[0\]\.rows: expected an integer of at least 1, got 15\.0"),
    (("records", 1, "offset"), lambda _: -1, r"\[0\]\.records\[1\]\.offset: expected an integer .*, got -1"),
    (("records", 1, "offset"), lambda _: 10**7, r"\[0\]\.records\[1\]\.offset: expected .*, got 10000000"),
    (("records", 1, "rows"), lambda _: 8, r"\[0\]\.rows: expected 16 .*, got 15"),
]


@pytest.mark.parametrize(("place", "value", "message"), ATTACKS)
def test_index_with_paths_outside_or_wrong_numbers(site, place, value, message):
    root, index, _ = site
    values = asdict(index)
    entry = values["splits"][SPLIT][0]
    for step in place[:-1]:
        entry = entry[step]
    entry[place[-1]] = value(root)
    for outcome in use(site, signed(values)):
        assert re.search(r"index\.json: splits\.finetune/train" + message, outcome)


def test_index_in_a_bucket_with_paths_outside(s3, tmp_path):
    import fsspec

    index = write_tiny(tmp_path / "tiny", SHAPE)
    values = asdict(index)
    values["splits"][SPLIT][0] |= {"file": "../secret.tar", "sha256": str(tmp_path / "backup")}
    for name, data in {"k3/index.json": signed(values), "secret.tar": b"secret"}.items():
        with fsspec.open(f"{s3}/{name}", "wb") as file:
            file.write(data)
    for read in (fetch_index, read_index, verify_shards):
        with pytest.raises(UserError, match=r"splits\.finetune/train\[0\]\.(file|sha256): expected"):
            read(f"{s3}/k3")


test_index_in_a_bucket_with_paths_outside = pytest.mark.processes(test_index_in_a_bucket_with_paths_outside)


@pytest.mark.parametrize("change", [{"sha256": "/home/backup"}, {"sha256": "a" * 63}, {"file": "../secret.tar"}])
def test_cache_and_readers_reject_unvalidated_names(site, tmp_path, change):
    """An entry that was made without the parser."""
    root, index, server = site
    home = contents(root / "home")
    entry = replace(
        index.splits[SPLIT][0], **{name: value.replace("/home", str(root / "home")) for name, value in change.items()}
    )
    cache = cache_of(server, tmp_path / "cache")
    seen = len(server.requests)
    for act in (cache.open, cache.discard) if "sha256" in change else (cache.open,):
        with pytest.raises(UserError, match="expected"):
            act(entry)
    if "file" in change:
        for read in (
            LocalShards(root / "home/shards").open,
            lambda shard: read_record(root / "home/shards", shard, 0, 3),
        ):
            with pytest.raises(UserError, match=r"secret\.tar': expected a name"):
                read(entry)
    assert len(server.requests) == seen
    assert contents(root / "home") == home


@pytest.mark.parametrize("says_length", [True, False])
def test_file_that_does_not_end_is_not_stored(site, tmp_path, monkeypatch, says_length):
    """A server that sends more bytes than the index says, or an index without end."""
    _, index, server = site
    shard = index.splits[SPLIT][0]
    monkeypatch.setattr(server, "says_length", says_length)
    monkeypatch.setitem(server.files, shard.file, bytes(50_000_000))
    monkeypatch.setitem(server.files, "index.json", bytes(50_000_000))
    monkeypatch.setattr(fetch, "SMALL_FILE_BYTES", 1_000)
    monkeypatch.setattr(remote, "SMALL_FILE_BYTES", 1_000)
    target = tmp_path / "target"
    with pytest.raises(UserError, match=rf"{shard.file}: expected at most {shard.bytes:,} bytes, got more"):
        fetch_file(f"{server.url}/{shard.file}", target, (shard.bytes, shard.sha256), waits=())
    assert target.stat().st_size < 20_000_000
    for read in (partial(fetch_index, waits=()), read_index):
        with pytest.raises(UserError, match=r"index\.json: .*expected at most 1,000 bytes, got more"):
            read(server.url)


def test_foreign_files_in_the_cache_folder_are_kept(site, tmp_path):
    _, index, server = site
    cache = cache_of(server, tmp_path, limit=max(shard.bytes for shard in index.shards))
    for name in ("mine.tar", ".mine.lock", ".mine.tar.lock", ".mine.partial"):
        (tmp_path / name).write_bytes(b"precious")
    assert promoters(cache, index)
    kept = [path.name for path in tmp_path.iterdir() if path.read_bytes() == b"precious"]
    assert sorted(kept) == [".mine.lock", ".mine.partial", ".mine.tar.lock", "mine.tar"]


def test_note_must_match_its_shard(site):
    entry = site[1].splits[SPLIT][0]
    values = asdict(entry)
    assert parse_shard_entry(values, entry.file) == entry
    for change in ({"file": "finetune/train-000001.tar"}, {"rows": 1}, {"sha256": "../x"}, {"records": []}):
        with pytest.raises(ValueError, match=r"."):
            parse_shard_entry({**values, **change}, entry.file)
    with pytest.raises(ValueError, match=r"shard\.file: expected"):
        parse_shard_entry(values, "finetune/train-000002.tar")


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(["epoch", "consumed"]), hostile | st.integers() | st.floats())
def test_invalid_position_is_rejected(site, name, value):
    root, index, _ = site
    stream = ShardStream(root / "home" / "shards", index, SPLIT, 7, RankSlice())
    valid = type(value) is int and 0 <= value <= (stream.rows if name == "consumed" else 2**31)
    state = replace(stream.state(), **{name: value})
    if valid:
        left = sum(batch.weight.sum() for step in stream.resume(state) for batch in step.micro_batches)
        assert left == stream.rows - state.consumed
        assert type(state).from_json(state.to_json()) == state
        return
    with pytest.raises(UserError, match=rf"{name}: expected an integer from 0 to .*, got"):
        stream.resume(state)
    epoch, consumed = state.epoch, state.consumed
    with pytest.raises(UserError, match=rf"{name}: expected"):
        stream.epoch(epoch, consumed)


@pytest.mark.parametrize(
    "change", [{"epoch": -1}, {"consumed": -5}, {"consumed": "5"}, {"consumed": 1.0}, {"epoch": True}]
)
def test_invalid_state_is_rejected(site, change):
    root, index, _ = site
    text = json.dumps({**asdict(ShardStream(root / "home/shards", index, SPLIT, 7, RankSlice()).state()), **change})
    with pytest.raises(UserError, match=f"not the state of a stream: {next(iter(change))}"):
        type(ShardStream(root / "home/shards", index, SPLIT, 7, RankSlice()).state()).from_json(text)


def test_numpy_float_is_rejected_as_epoch(site):
    root, index, _ = site
    with pytest.raises(UserError, match="epoch: expected an integer"):
        ShardStream(root / "home/shards", index, SPLIT, 7, RankSlice()).epoch(np.float64(1))


def test_publication_removes_only_its_own_leftovers(tmp_path):
    index = write_tiny(tmp_path / "tiny", SHAPE)
    store = FolderStore(tmp_path / "k3", index.key)
    shutil.copytree(tmp_path / "tiny", store.work)
    leftover = tmp_path / f".k3.{'a' * 16}.partial"
    leftover.mkdir()
    (tmp_path / ".k3.mine.partial").mkdir()
    (tmp_path / f".k3.{'b' * 16}.partial").write_text("mine")
    (tmp_path / f".k3.{'c' * 16}.partial").symlink_to(tmp_path / "tiny")
    store.publish(index)
    assert not leftover.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".k3.{'b' * 16}.partial", f".k3.{'c' * 16}.partial", ".k3.mine.partial", "k3", "tiny",
    ]  # fmt: skip
    assert contents(tmp_path / "tiny")
