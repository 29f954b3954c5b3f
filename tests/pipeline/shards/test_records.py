"""Records as bytes: any arrays come back, compressed or not, through plain tar tools, too."""

import io
import re
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards.records import END, MEMBERS, Record, parse_record, record_blocks
from pipeline.tokens.kmers import Ragged, id_dtype
from tests.conftest import ROOT


@st.composite
def records(draw):
    k = draw(st.sampled_from([1, 3, 4, 7]))
    lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=30))
    offsets = np.cumsum([0, *lengths])
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    ids = rng.integers(0, 5 + 5**k, offsets[-1]).astype(id_dtype(k))
    labels = np.where(rng.random(len(lengths)) < 0.1, np.nan, rng.random(len(lengths))).astype(np.float32)
    return Record(Ragged(ids, offsets), labels, rng.integers(0, 2**62, len(lengths)))


def same(a, b):
    pairs = [(a.tokens.values, b.tokens.values), (a.tokens.offsets, b.tokens.offsets), (a.id, b.id)]
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs) and np.array_equal(
        a.expression, b.expression, equal_nan=True
    )


@settings(deadline=None, max_examples=60)
@given(records(), st.booleans())
def test_any_record_comes_back(record, zstd):
    data = b"".join(record_blocks(7, record, zstd))
    assert same(parse_record(data), record)
    assert b"".join(record_blocks(7, record, zstd)) == data
    with tarfile.open(fileobj=io.BytesIO(data + END)) as tar:
        assert tar.getnames() == [f"000000007.{name}.npy{'.zst' if zstd else ''}" for name in MEMBERS]
        assert all((m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o444) for m in tar)
        if not zstd:
            stored = {name: np.load(io.BytesIO(tar.extractfile(f"000000007.{name}.npy").read())) for name in MEMBERS}
            assert np.array_equal(stored["tokens"], record.tokens.values)


@settings(deadline=None, max_examples=60)
@given(records(), st.booleans(), st.data())
def test_bytes_cut_off_are_no_record(record, zstd, data):
    whole = b"".join(record_blocks(0, record, zstd))
    end = data.draw(st.integers(0, len(whole) - tarfile.BLOCKSIZE - 1))
    with pytest.raises(ValueError, match=r"."):
        parse_record(whole[:end])


def test_plain_webdataset_reads_compressed_members_as_the_readme_shows(tmp_path):
    rows = Ragged(np.arange(5, 125, dtype=np.uint8), np.array([0, 60, 120]))
    record = Record(rows, np.array([1.5, np.nan], np.float32), np.array([3, 4]))
    (tmp_path / "shard.tar").write_bytes(b"".join(record_blocks(0, record, zstd=True)) + END)
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "shards/README.md").read_text(), re.MULTILINE | re.DOTALL)
    named = code.replace("shards/k3/finetune/test-000000.tar", str(tmp_path / "shard.tar"))
    assert named != code
    found: dict = {}
    exec(named, found)
    assert np.array_equal(found["tokens"], rows.values)
    assert np.array_equal(found["record"]["id.npy.zst"], record.id)
