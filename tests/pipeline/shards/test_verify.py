import json
import re
import shutil
from dataclasses import asdict, replace

import pytest

from pipeline.dataset.database import dataset_info, open_dataset
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.shards.staleness import check_fresh
from pipeline.shards.verify import verify_shards
from tests.pipeline.shards.shard_files import write_index


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made.shards, tmp_path / "k3")
    return tmp_path / "k3"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("file",), "../../finetune/train-000000.tar"),
        (("file",), "/etc/passwd"),
        (("sha256",), "../../../tmp/x"),
        (("bytes",), -1),
        (("rows",), "many"),
        (("records", 0, "offset"), -512),
        (("records", 0, "crc32"), None),
    ],
)
def test_untrusted_index_is_validated(copy, place, value):
    """An index with a matching hash cannot name a file outside of its folder or of the cache."""
    index = read_index(copy)
    values = asdict(index)
    entry = values["splits"]["finetune/train"][0]
    for step in place[:-1]:
        entry = entry[step]
    entry[place[-1]] = value
    write_index(copy, values)
    field = "".join(f"[{step}]" if isinstance(step, int) else rf"\.{step}" for step in place).replace("[0]", r"\[0\]")
    with pytest.raises(UserError, match=rf"index\.json: splits\.finetune/train\[0\]{field}: expected .*, got "):
        read_index(copy)


def test_verify_names_the_record_with_a_flipped_bit(copy):
    index = read_index(copy)
    shard = index.splits["finetune/train"][-1]
    record = shard.records[-1]
    data = bytearray((copy / shard.file).read_bytes())
    data[record.offset + 700] ^= 1
    (copy / shard.file).write_bytes(data)
    with pytest.raises(UserError, match=rf"{shard.file}: record {len(shard.records) - 1}, bytes {record.offset:,}"):
        verify_shards(copy)


def test_shards_of_another_dataset_are_kept_by_the_first_fix(made):
    index = read_index(made.shards)
    with open_dataset(made.config.dataset.path) as connection:
        other = replace(dataset_info(connection), key="0" * 64)
    with pytest.raises(UserError, match=r"these shards are stale \(dataset: ") as error:
        check_fresh(index, made.config, other)
    first, _, second = str(error.value).partition("; fix: ")[2].partition("; ")
    (path,) = re.findall(r"promoter-bert shards .*shards\.path=([^ ,]+), then", first)
    assert path != made.config.shards.path
    assert path not in second
    assert "promoter-bert shards" in second


def test_shards_of_one_k_are_named_if_their_parent_is_given(copy):
    with pytest.raises(UserError, match=f"shards are in {copy};"):
        read_index(copy.parent)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-600]),
            "expected 1,024 zeros at the end of a file of 20,480",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-2000]), "record 1, bytes .*: expected .* bytes, got"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"), "expected 1,024 zeros at the end"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "expected 1,024 zeros at the end"),
    ],
)
def test_verify_finds_other_corruption(copy, damage, message):
    damage(copy / read_index(copy).splits["pretrain/valid"][0].file)
    with pytest.raises(UserError, match=message):
        verify_shards(copy)


def test_changed_index_is_rejected(copy):
    values = json.loads((copy / "index.json").read_text())
    none = {**values["splits"], "finetune/train": []}
    for change, message in (
        ({"label_mean": 99.0}, "sha256: the file changed since it was written"),
        ({"splits": none}, r"splits\.finetune/train: expected .* at least 1 item"),
    ):
        (copy / "index.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(UserError, match=message):
            read_index(copy)
    (copy / "index.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        verify_shards(copy)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (lambda shard: shard["records"][0].update(rows=101), r"\[0\]\.rows: expected .* \(the sum of its records\)"),
        (
            lambda shard: (shard["records"][0].update(rows=101), shard.update(rows=shard["rows"] + 1)),
            "expected 101 promoters, got 100",
        ),
        (lambda shard: shard["records"][0].update(crc32=7), "expected CRC-32 00000007"),
        (lambda shard: shard["records"].pop(), r"\[0\]\.rows: expected"),
        (lambda shard: shard["records"].reverse(), r"\[0\]\.records\[0\]\.offset: expected 0 "),
        (lambda shard: shard.update(file="finetune/train-000001.tar"), r"\[0\]\.file: expected 'finetune/train-000000"),
        (lambda shard: shard.update(sha256="0" * 64), "expected sha256 0000000000000000..."),
        (lambda shard: shard.update(rows=7), r"\[0\]\.rows: expected .*, got 7"),
        (lambda shard: shard.update(bytes=7), r"\[0\]\.bytes: expected .*, got 7"),
    ],
)
def test_verify_rejects_a_forged_index(copy, lie, message):
    """The hash of the index matches its wrong content."""
    values = asdict(read_index(copy))
    lie(values["splits"]["finetune/train"][0])
    write_index(copy, values)
    with pytest.raises(UserError, match=message):
        verify_shards(copy)
