"""One record of a shard, its bytes held against the index."""

import zlib
from pathlib import Path

from pipeline.errors import UserError
from pipeline.io.remote import read_bytes
from pipeline.shards.index import ShardEntry
from pipeline.shards.records import Record, parse_record

MEND = "delete the file and write it again: promoter-bert shards (with the options it was written with)"


def read_record(folder: Path | str, shard: ShardEntry, number: int) -> Record:
    """Record `number` of a shard below a folder or URL. Raises UserError where it is not what the index says."""
    entry = shard.records[number]
    try:
        data = read_bytes(folder, shard.file, entry.offset, entry.offset + entry.bytes)
    except FileNotFoundError:
        raise missing(folder, shard) from None
    return checked_record(data, folder, shard, number)


def checked_record(data: bytes | memoryview, folder: Path | str, shard: ShardEntry, number: int) -> Record:
    """The record that the index says these bytes are. Raises UserError naming file, record and bytes otherwise."""
    entry = shard.records[number]
    place = f"{folder}/{shard.file}: record {number}, bytes {entry.offset:,} to {entry.offset + entry.bytes:,}"
    if len(data) != entry.bytes:
        raise UserError(f"{place}: expected {entry.bytes:,} bytes, got {len(data):,}; {MEND}")
    found = zlib.crc32(data)
    if found != entry.crc32:
        raise UserError(f"{place}: expected CRC-32 {entry.crc32:08x}, got {found:08x}; {MEND}")
    try:
        record = parse_record(data)
    except ValueError as error:
        raise UserError(f"{place}: {error}; {MEND}") from None
    if {len(record), len(record.tokens), len(record.expression)} != {entry.rows}:
        raise UserError(f"{place}: expected {entry.rows:,} promoters, got {len(record):,}; {MEND}")
    return record


def missing(folder: Path | str, shard: ShardEntry) -> UserError:
    """The error for a shard that is not there."""
    return UserError(f"{folder}/{shard.file}: no such file; write it again: promoter-bert shards")
