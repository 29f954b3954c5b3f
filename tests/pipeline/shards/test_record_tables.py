"""Indexes of very many records: the records are in tables, of which a reader reads the rows of its shards."""

import hashlib
import json
from dataclasses import asdict

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.shards import index as index_module
from pipeline.shards.fetch import fetch_index
from pipeline.shards.index import parse_index, read_index, serialize_files, serialize_index
from pipeline.shards.location import shard_folder
from pipeline.shards.store import FolderStore
from pipeline.shards.verify import verify_shards
from pipeline.shards.write import write_shards
from pipeline.stream.stream import RankSlice, ShardStream
from tests.pipeline.file_server import Answers, serving
from tests.pipeline.shards.shard_files import hashes, signed, with_shards_in
from tests.pipeline.stream.tiny_shards import SPLIT, write_tiny

SHAPE = [[5, 7, 3], [4, 4], [9], [6, 1, 1, 2]]
TABLE = f"{SPLIT}.records.npy"


@pytest.fixture
def split(tmp_path, monkeypatch):
    """Write shards with a split index. Returns the folder, and the index before it was split."""
    index = write_tiny(tmp_path, SHAPE)
    monkeypatch.setattr(index_module, "MOST_RECORDS", 3)
    for name, content in serialize_files(index).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path, index


def ids(folder, index):
    steps = ShardStream(folder, index, SPLIT, 7, RankSlice(), seed=1).epoch(0)
    return [step.micro_batches[0].id.tolist() for step in steps]


def test_split_index_equals_the_whole_one(split):
    folder, index = split
    again = read_index(folder)
    values = json.loads((folder / "index.json").read_bytes())
    assert values["format"] == 3
    assert "records" not in values["splits"][SPLIT][0]
    assert [list(shard.records) for shard in again.shards] == [shard.records for shard in index.shards]
    assert again == index
    assert ids(folder, again) == ids(folder, index)
    assert verify_shards(folder).records == 10
    assert np.load(folder / TABLE)[:, 2].tolist() == [rows for shard in SHAPE for rows in shard]
    assert serialize_index(again).splitlines()[:3] == serialize_index(index).splitlines()[:3]


def test_usual_index_stays_one_file(tmp_path):
    index = write_tiny(tmp_path, SHAPE)
    assert serialize_files(index) == {"index.json": serialize_index(index).encode()}


def test_only_the_rows_of_used_shards_are_read(split):
    folder, index = split
    reads = []

    def read(place, name, start, end):
        reads.append((name, (end - start) // 32))
        return (folder / name).read_bytes()[start:end]

    again = parse_index((folder / "index.json").read_bytes(), f"{folder}/index.json", read)
    assert (len(again.shards), again.rows(SPLIT), len(again.shards[3].records)) == (4, index.rows(SPLIT), 4)
    assert not reads
    assert again.shards[1].records[1] == index.shards[1].records[1]
    assert list(again.shards[1].records) == index.shards[1].records
    assert reads == [(TABLE, 2)]


@pytest.mark.parametrize("ranges", [True, False])
def test_split_index_from_a_server(split, ranges):
    folder, index = split
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with serving(Answers(files, ranges=ranges)) as server:
        again = fetch_index(server.url, (0.0,))
        server.statuses = [503]
        assert list(again.shards[2].records) == index.shards[2].records
        assert [name for name, _ in server.requests[:2]] == ["/files/index.json", f"/files/{TABLE}"]
        assert [list(shard.records) for shard in again.shards] == [shard.records for shard in index.shards]
        assert len([name for name, wanted in server.requests[1:] if wanted is None]) == (not ranges)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.update(first=-1), r"splits\.finetune/train\[1\]\.table: first: expected"),
        (lambda part: part.update(records=0), r"\[1\]\.table: records: expected"),
        (lambda part: part.update(sha256="../x"), r"\[1\]\.table: sha256: expected 64 hex digits"),
        (lambda part: part.clear(), r"\[1\]\.table: first: missing"),
        (lambda part: part.update(first=0), r"records\.npy: rows 0 to 2: expected sha256"),
        (lambda part: part.update(first=10**9), r"records\.npy: rows .*: expected sha256"),
    ],
)
def test_invalid_slices_are_named(split, change, message):
    folder, _ = split
    values = json.loads((folder / "index.json").read_bytes())
    change(values["splits"][SPLIT][1]["table"])
    (folder / "index.json").write_bytes(signed(values))
    with pytest.raises(UserError, match=message):
        list(read_index(folder).shards[1].records)


@pytest.mark.parametrize(("column", "value"), [(0, 512), (1, -512), (2, 0), (2, 99), (3, 2**32)])
def test_invalid_records_of_a_stranger_are_named(split, column, value):
    """The hashes match, but not the rules of an index."""
    folder, _ = split
    table = np.load(folder / TABLE)
    table[3, column] = value
    np.save(folder / TABLE, table)
    values = json.loads((folder / "index.json").read_bytes())
    values["splits"][SPLIT][1]["table"]["sha256"] = hashlib.sha256(table[3:5].tobytes()).hexdigest()
    (folder / "index.json").write_bytes(signed(values))
    with pytest.raises(UserError, match=r"records\.npy: finetune/train-000001\.tar: .*expected"):
        ids(folder, read_index(folder))


@pytest.mark.parametrize("size", [128 + 3 * 32 + 2, 128 + 3 * 32 + 32, 128])
def test_truncated_table_of_a_stranger_is_named(split, size):
    """The hash is that of the bytes that are left."""
    folder, _ = split
    data = (folder / TABLE).read_bytes()[:size]
    (folder / TABLE).write_bytes(data)
    values = json.loads((folder / "index.json").read_bytes())
    values["splits"][SPLIT][1]["table"]["sha256"] = hashlib.sha256(data[128 + 3 * 32 :]).hexdigest()
    (folder / "index.json").write_bytes(signed(values))
    with pytest.raises(UserError, match=rf"{TABLE}: rows 3 to 5: expected 64 bytes, got {max(size - 224, 0)}"):
        list(read_index(folder).shards[1].records)


def test_missing_table_is_named(split):
    folder, _ = split
    (folder / TABLE).unlink()
    for read in (lambda: ids(folder, read_index(folder)), lambda: verify_shards(folder)):
        with pytest.raises(UserError, match=rf"{TABLE}: no such file; fix: promoter-bert shards"):
            read()


def test_missing_table_is_written_again(made, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "MOST_RECORDS", 3)
    config = with_shards_in(made.config, tmp_path, "shards.workers=1")
    write_shards(config)
    folder = shard_folder(config)
    before = hashes(folder)
    assert write_shards(config).written == 0
    (folder / TABLE).unlink()
    assert write_shards(config).note == ""
    assert hashes(folder) == before


def test_invalid_split_index_is_rejected_as_a_whole_one(split):
    folder, _ = split
    values = json.loads((folder / "index.json").read_bytes())
    for splits in (
        None,
        {},
        [],
        {SPLIT: None},
        {SPLIT: [1]},
        {SPLIT: [{}]},
        {SPLIT: []},
        {"../x": values["splits"][SPLIT]},
    ):
        with pytest.raises(UserError, match=r"index\.json: splits"):
            parse_index(signed({**values, "splits": splits}), "index.json")
    for field, value in (("rows", 1), ("bytes", 1024), ("bytes", "5"), ("file", "../secret.tar"), ("sha256", "x")):
        shard = {**values["splits"][SPLIT][0], field: value}
        with pytest.raises(UserError, match=r"splits\.finetune/train\[0\]|000000\.tar: shard\.(rows|bytes): expected"):
            list(parse_index(signed({**values, "splits": {SPLIT: [shard]}}), f"{folder}/index.json").shards[0].records)


def test_published_folder_holds_the_tables(split, tmp_path):
    folder, index = split
    store = FolderStore(tmp_path / "published", index.key)
    for shard in index.shards:
        with store.new_shard(shard.file) as path:
            path.write_bytes((folder / shard.file).read_bytes())
    store.publish(index)
    assert read_index(store.folder) == index
    store.begin(index)  # the table is no foreign file
    assert asdict(read_index(store.folder).shards[0])["rows"] == 15
