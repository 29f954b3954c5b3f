"""Records as bytes: round trips, compressed or not, and through tar tools."""

import io
import re
import tarfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.shards.index import RecordEntry, ShardEntry
from pipeline.shards.records import END, MEMBERS, Record, check_record, parse_record, serialize_record
from pipeline.tokens.kmers import Ragged, id_dtype, vocabulary_size
from tests.conftest import ROOT


@st.composite
def records(draw, ks=(1, 3, 4, 7), lowest=0):
    k = draw(st.sampled_from(ks))
    lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=30))
    offsets = np.cumsum([0, *lengths])
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    ids = rng.integers(lowest, 5 + 5**k, offsets[-1]).astype(id_dtype(k))
    labels = np.where(rng.random(len(lengths)) < 0.1, np.nan, rng.random(len(lengths))).astype(np.float32)
    return Record(Ragged(ids, offsets), labels, rng.integers(0, 2**62, len(lengths)))


kmer_records = records(ks=(3,), lowest=5)


def same(a, b):
    pairs = [(a.tokens.values, b.tokens.values), (a.tokens.offsets, b.tokens.offsets), (a.id, b.id)]
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs) and np.array_equal(
        a.expression, b.expression, equal_nan=True
    )


@settings(deadline=None, max_examples=60)
@given(records(), st.booleans())
def test_record_round_trip(record, zstd):
    data = b"".join(serialize_record(7, record, zstd))
    assert same(parse_record(data), record)
    assert b"".join(serialize_record(7, record, zstd)) == data
    with tarfile.open(fileobj=io.BytesIO(data + END)) as tar:
        assert tar.getnames() == [f"000000007.{name}.npy{'.zst' if zstd else ''}" for name in MEMBERS]
        assert all((m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o444) for m in tar)
        if not zstd:
            stored = {name: np.load(io.BytesIO(tar.extractfile(f"000000007.{name}.npy").read())) for name in MEMBERS}
            assert np.array_equal(stored["tokens"], record.tokens.values)


@settings(deadline=None, max_examples=60)
@given(records(), st.booleans(), st.data())
def test_truncated_record_is_rejected(record, zstd, data):
    whole = b"".join(serialize_record(0, record, zstd))
    end = data.draw(st.integers(0, len(whole) - tarfile.BLOCKSIZE - 1))
    with pytest.raises(ValueError, match=r"."):
        parse_record(whole[:end])


K = 3
HEADER_FIELDS = {
    "name": 0,
    "mode": 100,
    "size": 124,
    "mtime": 136,
    "type": 156,
    "link": 157,
    "magic": 257,
    "prefix": 345,
}
"""Offsets in a tar header."""


def with_checksum(header):
    """Return the header with the checksum of its bytes."""
    blank = bytes(header[:148]) + b" " * 8 + bytes(header[156:])
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


@st.composite
def damage(draw, data):
    """Draw bytes of a record with flips, edited headers with valid checksums, and moved, lost or doubled blocks."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        blocks = len(data) // tarfile.BLOCKSIZE
        first = draw(st.integers(0, max(blocks - 1, 0))) * tarfile.BLOCKSIZE
        block = slice(first, first + tarfile.BLOCKSIZE)
        kind = draw(st.sampled_from(["flip", "header", "header", "text", "lose", "double", "swap", "cut"]))
        if kind == "flip" and data:
            data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
        elif kind == "header" and len(data[block]) == tarfile.BLOCKSIZE:
            at = draw(st.sampled_from(sorted(HEADER_FIELDS.values())))
            new = draw(st.binary(min_size=1, max_size=12) | st.sampled_from(HEADER_TEXTS))
            data[first + at : first + at + len(new)] = new
            data[block] = with_checksum(data[block])
        elif kind == "text":
            old, new = draw(st.permutations(HEADER_TEXTS))[:2]
            data = bytearray(bytes(data).replace(old, new, draw(st.integers(1, 4))))
        elif kind == "lose":
            del data[block]
        elif kind == "double":
            data[first:first] = data[block]
        elif kind == "swap":
            data[block], data[:512] = data[:512], data[block]
        elif kind == "cut":
            data = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


HEADER_TEXTS = [
    b"000000007.tokens.npy", b"000000007.id.npy", b"offsets", b"expression", b"x/../../y", b"<u4", b"<f4",
    b"<i8", b"|u1", b"|O8", b"{'descr'", b"fortran_order': True ", b"(3,)", b"(3,3)", b"(-1,)", b"\x93NUMPY\x01\x00",
    b"\x80" + b"\xff" * 11, b"77777777777\0", b"00000000000\0", b"1", b"5", b"2", b"x", b"\x00", b"\xff", b".npy.zst",
]  # fmt: skip


def entry_of(data, rows):
    return ShardEntry(
        "finetune/train-000000.tar", rows, len(data) + len(END), "0" * 64,
        [RecordEntry(0, len(data), rows, zlib.crc32(data))],
    )  # fmt: skip


def read_or_named(data, shard):
    """Parse a record. Returns None if the error names the record."""
    try:
        return check_record(data, "shards", shard, 0, K)
    except UserError as error:
        message = str(error)
    assert message.startswith("shards/finetune/train-000000.tar: record 0, bytes 0 to ")
    assert message.isprintable()
    return None


@settings(deadline=None, max_examples=200)
@given(kmer_records, st.booleans(), st.data())
def test_corrupt_record_gives_equal_data_or_an_error_naming_it(record, zstd, data):
    whole = b"".join(serialize_record(7, record, zstd))
    read = read_or_named(data.draw(damage(whole)), entry_of(whole, len(record)))
    assert read is None or same(read, record)


@settings(deadline=None, max_examples=200)
@given(kmer_records, st.booleans(), st.data())
def test_forged_record_is_valid_or_an_error_naming_it(record, zstd, data):
    """An index from elsewhere can have the size and the CRC of any bytes."""
    corrupt = data.draw(damage(b"".join(serialize_record(7, record, zstd))))
    read = read_or_named(corrupt, entry_of(corrupt, len(record)))
    if read is None:
        return
    assert len(read) == len(read.tokens) == len(read.expression) == len(record)
    assert [len(read.tokens.row(i)) for i in range(len(read))] == np.diff(read.tokens.offsets).tolist()
    assert sum(map(len, map(read.tokens.row, range(len(read))))) == len(read.tokens.values)
    assert all(5 <= token < vocabulary_size(K) for token in read.tokens.values.tolist())
    assert (read.expression.dtype, read.id.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": np.array([1, 2, 4])}, "offsets: expected ascending numbers from 0 to 4"),
        ({"offsets": np.array([0, 3, 2])}, "offsets: expected ascending numbers from 0 to 4"),
        ({"offsets": np.array([0, 2, 5])}, "offsets: expected ascending numbers from 0 to 4"),
        ({"tokens": np.array([4, 5, 6, 7], np.uint8)}, "tokens: expected ids from 5 to 129, got 4 to 7"),
        ({"tokens": np.array([5, 5, 6, 130], np.uint8)}, "tokens: expected ids from 5 to 129, got 5 to 130"),
        ({"tokens": np.array([5, 6, 7, 8], np.uint16)}, "tokens: expected dtype uint8 for k = 3, got uint16"),
        ({"tokens": np.array([5, 6, 7, 8], np.int64)}, "tokens: expected dtype .*, got <i8"),
        ({"id": np.array([1, 2, 3])}, "expected as many .*, got 2 promoters, 2 labels and 3 ids"),
        ({"id": np.array([1.0, 2.0])}, "id: expected dtype <i8, got <f8"),
        ({"expression": np.array([[1.0], [2.0]], np.float32)}, "expression: expected an array"),
    ],
)
def test_invalid_arrays_are_named(change, message):
    arrays = {
        "tokens": np.array([5, 6, 7, 8], np.uint8), "offsets": np.array([0, 2, 4]),
        "expression": np.zeros(2, np.float32), "id": np.array([1, 2]),
    } | change  # fmt: skip
    record = Record(Ragged(arrays["tokens"], arrays["offsets"]), arrays["expression"], arrays["id"])
    data = b"".join(serialize_record(0, record))
    with pytest.raises(UserError, match=f"record 0, bytes 0 to .*: {message}"):
        check_record(data, "shards", entry_of(data, 2), 0, K)


def test_webdataset_reads_compressed_members_as_in_the_readme(tmp_path):
    rows = Ragged(np.arange(5, 125, dtype=np.uint8), np.array([0, 60, 120]))
    record = Record(rows, np.array([1.5, np.nan], np.float32), np.array([3, 4]))
    (tmp_path / "shard.tar").write_bytes(b"".join(serialize_record(0, record, zstd=True)) + END)
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "shards/README.md").read_text(), re.MULTILINE | re.DOTALL)
    named = code.replace("shards/k3/finetune/test-000000.tar", str(tmp_path / "shard.tar"))
    assert named != code
    result: dict = {}
    exec(named, result)
    assert np.array_equal(result["tokens"], rows.values)
    assert np.array_equal(result["record"]["id.npy.zst"], record.id)
