"""Read shards again and hold every hash, size and count of the index against them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.io.remote import read_bytes
from pipeline.shards.index import Index, ShardEntry, read_index
from pipeline.shards.record_reader import MEND, checked_record, missing
from pipeline.shards.records import END, Record
from pipeline.tokens.kmers import SPECIALS, vocabulary_size


@dataclass(frozen=True)
class Verified:
    """What was found whole."""

    folder: str
    shards: int
    records: int
    rows: int
    bytes: int


def verify_shards(folder: Path | str, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Verified:
    """Check every shard of an index, in a folder or at a URL. Raises UserError naming the first bytes that differ.

    Memory: a record at a time.
    """
    index = read_index(folder)
    shards = list(index.shards)
    total = sum(shard.rows for shard in shards)
    done = 0
    for shard in shards:
        _verify_shard(folder, index, shard)
        done += shard.rows
        progress(done, total)
    return Verified(str(folder), len(shards), sum(len(s.records) for s in shards), total, sum(s.bytes for s in shards))


def _verify_shard(folder: Path | str, index: Index, shard: ShardEntry) -> None:
    place = f"{folder}/{shard.file}"
    sha256 = hashlib.sha256()
    end = 0
    for number, entry in enumerate(shard.records):
        if entry.offset != end:
            raise UserError(f"{place}: record {number} begins at {entry.offset:,}, the one before it ends at {end:,}")
        end += entry.bytes
        data = _read(folder, shard, entry.offset, end)
        sha256.update(data)
        _verify_ids(checked_record(data, folder, shard, number), index, f"{place}: record {number}")
    if sum(entry.rows for entry in shard.records) != shard.rows:
        raise UserError(f"{place}: its records do not add up to {shard.rows:,} promoters")
    rest = _read(folder, shard, end, None)
    if rest != END or end + len(rest) != shard.bytes:
        raise UserError(
            f"{place}: bytes {end:,} to {end + len(rest):,}: expected {len(END):,} zeros at the end of a file of "
            f"{shard.bytes:,}; {MEND}"
        )
    sha256.update(rest)
    if sha256.hexdigest() != shard.sha256:
        raise UserError(f"{place}: expected sha256 {shard.sha256[:16]}..., got {sha256.hexdigest()[:16]}...; {MEND}")


def _verify_ids(record: Record, index: Index, place: str) -> None:
    """Whether the numbers are tokens of the index's vocabulary, row by row."""
    values, offsets = record.tokens.values, record.tokens.offsets
    if values.dtype != index.dtype:
        raise UserError(f"{place}: expected ids of {index.dtype}, got {values.dtype}")
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise UserError(f"{place}: its offsets do not cut {len(values):,} ids into rows")
    if len(values) and (values.min() < len(SPECIALS) or values.max() >= vocabulary_size(index.k)):
        raise UserError(f"{place}: an id outside of the k-mers, {len(SPECIALS)} to {vocabulary_size(index.k) - 1:,}")


def _read(folder: Path | str, shard: ShardEntry, start: int, end: int | None) -> bytes:
    try:
        return read_bytes(folder, shard.file, start, end)
    except FileNotFoundError:
        raise missing(folder, shard) from None
