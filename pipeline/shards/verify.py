"""Verification of shards: the bytes against every hash, size and count of the index."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pipeline.errors import UserError
from pipeline.shards.index import Index, ShardEntry, read_index
from pipeline.shards.records import END, check_bytes, check_record, read_range, rewrite_fix


@dataclass(frozen=True)
class VerifyResult:
    """Outcome of `verify_shards`: numbers of shards, records, promoters (rows) and bytes."""

    folder: str
    shards: int
    records: int
    rows: int
    bytes: int


def verify_shards(
    folder: Path | str, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> VerifyResult:
    """Verify every shard of an index, in a folder or at a URL.

    on_progress: called with the promoters done and the total. Memory: one record. Raises UserError that names the first
    wrong byte range, or the first invalid field of the index.
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


def check_splits(folder: Path | str, index: Index, splits: Iterable[str], command: str) -> None:
    """Check size and CRC-32 of all records of some splits, a record in memory at a time.

    command: writes the shards, for the fix. Raises UserError that names the first wrong byte range.
    """
    for shard in chain.from_iterable(index.splits[split] for split in splits):
        for number, entry in enumerate(shard.records):
            data = read_range(folder, shard, entry.offset, entry.offset + entry.bytes)
            check_bytes(data, folder, shard, number, command)


def _verify_shard(folder: Path | str, index: Index, shard: ShardEntry) -> None:
    place, fix = f"{folder}/{shard.file}", rewrite_fix(folder, shard)
    sha256 = hashlib.sha256()
    end = 0
    for number, entry in enumerate(shard.records):
        end = entry.offset + entry.bytes
        data = read_range(folder, shard, entry.offset, end)
        sha256.update(data)
        check_record(data, folder, shard, number, index.k, index.label_count)
    rest = read_range(folder, shard, end, None)
    if rest != END:
        raise UserError(
            f"{place}: bytes {end:,} to {end + len(rest):,}: expected {len(END):,} zeros at the end of a file of "
            f"{shard.bytes:,}; {fix}"
        )
    sha256.update(rest)
    if sha256.hexdigest() != shard.sha256:
        raise UserError(f"{place}: expected sha256 {shard.sha256[:16]}..., got {sha256.hexdigest()[:16]}...; {fix}")
