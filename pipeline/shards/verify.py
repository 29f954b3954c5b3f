"""Verification of shards: every hash, size and count of the index against the bytes."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.shards.index import Index, ShardEntry, read_index
from pipeline.shards.records import END, REWRITE, Record, check_record, read_range
from pipeline.tokens.kmers import SPECIALS, vocabulary_size


@dataclass(frozen=True)
class VerifyResult:
    """Counts of the shards, records, promoters and bytes that were verified."""

    folder: str
    shards: int
    records: int
    rows: int
    bytes: int


def verify_shards(
    folder: Path | str, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> VerifyResult:
    """Check every shard of an index, in a folder or at a URL. Raises UserError naming the first bytes that differ.

    Memory: one record at a time. on_progress: gets the promoters done, and all.
    """
    index = read_index(folder)
    shards = index.shards
    total, done = sum(shard.rows for shard in shards), 0
    for shard in shards:
        _verify_shard(folder, index, shard)
        done += shard.rows
        on_progress(done, total)
    records, size = sum(len(shard.records) for shard in shards), sum(shard.bytes for shard in shards)
    return VerifyResult(str(folder), len(shards), records, total, size)


def _verify_shard(folder: Path | str, index: Index, shard: ShardEntry) -> None:
    place = f"{folder}/{shard.file}"
    sha256 = hashlib.sha256()
    end = 0
    for number, entry in enumerate(shard.records):
        if entry.offset != end:
            raise UserError(
                f"{place}: record {number}: begins at {entry.offset:,}; expected {end:,}, where the one before ends"
            )
        end += entry.bytes
        data = read_range(folder, shard, entry.offset, end)
        sha256.update(data)
        _verify_ids(check_record(data, folder, shard, number), index, f"{place}: record {number}")
    if sum(entry.rows for entry in shard.records) != shard.rows:
        raise UserError(f"{place}: its records do not add up to {shard.rows:,} promoters; {REWRITE}")
    rest = read_range(folder, shard, end, None)
    if rest != END or end + len(rest) != shard.bytes:
        raise UserError(
            f"{place}: bytes {end:,} to {end + len(rest):,}: expected {len(END):,} zeros at the end of a file of "
            f"{shard.bytes:,}; {REWRITE}"
        )
    sha256.update(rest)
    if sha256.hexdigest() != shard.sha256:
        raise UserError(f"{place}: expected sha256 {shard.sha256[:16]}..., got {sha256.hexdigest()[:16]}...; {REWRITE}")


def _verify_ids(record: Record, index: Index, place: str) -> None:
    """Raise UserError if a record's ids are not rows of tokens in the index's vocabulary."""
    values, offsets = record.tokens.values, record.tokens.offsets
    if values.dtype != index.dtype:
        raise UserError(f"{place}: expected ids of {index.dtype}, got {values.dtype}")
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise UserError(f"{place}: its offsets do not split {len(values):,} ids into rows")
    if len(values) and (values.min() < len(SPECIALS) or values.max() >= vocabulary_size(index.k)):
        raise UserError(
            f"{place}: an id outside of the k-mers; expected {len(SPECIALS)} to {vocabulary_size(index.k) - 1:,}"
        )
