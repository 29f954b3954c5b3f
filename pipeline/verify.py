"""Read shards again and hold every hash, size and count of the index against them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.index import ShardEntry, read_index
from pipeline.kmers import vocabulary_size
from pipeline.records import parse_record


@dataclass(frozen=True)
class Verified:
    """What was found whole."""

    folder: str
    shards: int
    records: int
    rows: int
    bytes: int


def verify_shards(folder: Path, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Verified:
    """Check every shard of an index. Raises UserError naming the first file and bytes that differ."""
    index = read_index(folder)
    shards = [shard for entries in index.splits.values() for shard in entries]
    total = sum(shard.rows for shard in shards)
    done = 0
    for shard in shards:
        _verify_shard(folder, shard, vocabulary_size(index.k))
        done += shard.rows
        progress(done, total)
    return Verified(str(folder), len(shards), sum(len(s.records) for s in shards), total, sum(s.bytes for s in shards))


def _verify_shard(folder: Path, shard: ShardEntry, vocabulary: int) -> None:
    path = folder / shard.file
    again = "write it again: promoter-bert shards (with the options it was written with)"
    mend = f"delete the file and {again}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {again}") from None
    if len(data) != shard.bytes:
        raise UserError(f"{path}: expected {shard.bytes:,} bytes, got {len(data):,}; {mend}")
    for number, entry in enumerate(shard.records):
        span = data[entry.offset : entry.offset + entry.bytes]
        place = f"{path}: record {number}, bytes {entry.offset:,} to {entry.offset + entry.bytes:,}"
        found = hashlib.sha256(span).hexdigest()
        if found != entry.sha256:
            raise UserError(f"{place}: sha256 {found[:16]}..., expected {entry.sha256[:16]}...; {mend}")
        record = parse_record(span)
        if len(record) != entry.rows or len(record.tokens) != entry.rows:
            raise UserError(f"{place}: {len(record):,} promoters, expected {entry.rows:,}; {mend}")
        if record.tokens.values.size and int(record.tokens.values.max()) >= vocabulary:
            raise UserError(f"{place}: an id beyond the vocabulary of {vocabulary:,}; {mend}")
    if sum(entry.rows for entry in shard.records) != shard.rows:
        raise UserError(f"{path}: its records do not add up to {shard.rows:,} promoters")
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise UserError(f"{path}: the bytes between or after the records differ from what was written; {mend}")
