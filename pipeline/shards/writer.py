"""Writer of one shard: rows of the dataset -> ids -> records -> a tar file, and a note when it is finished."""

import hashlib
import socket
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import BinaryIO

import duckdb
import numpy as np

from pipeline.config.schema import DataConfig
from pipeline.dataset.database import dataset_info, open_dataset
from pipeline.errors import UserError
from pipeline.io.arrow import rebatch
from pipeline.shards.index import RecordEntry, ShardEntry, shard_key
from pipeline.shards.plan import ShardTask
from pipeline.shards.records import END, Record, record_blocks
from pipeline.shards.store import ShardStore
from pipeline.tokens.kmers import encode_promoters

BUFFER_BYTES = 8 * 2**20
"""Buffer for the ids of a record; they take 1.6 MB in the paper's preset."""


ShardResult = tuple[ShardEntry, bool]
"""A shard on disk, and whether it was written now, not by an interrupted run before."""


def write_shard(task: ShardTask, config: DataConfig, store: ShardStore) -> ShardResult:
    """Write one shard, then its note, unless an interrupted run finished it.

    config: as the dataset was built. Memory: some records and DuckDB's read-ahead, whatever the size of the shard.
    Raises UserError if the dataset is not the one of the plan, or if the shard cannot be written.
    """
    existing = store.find_finished(task.file)
    if existing is not None:
        return existing, False
    with open_dataset(config.dataset.path) as connection:
        if shard_key(dataset_info(connection).key, config) != store.key:
            host = socket.gethostname()
            raise UserError(f"{config.dataset.path}: on {host}, not the dataset that the shards were planned from")
        # Closed on errors, too: DuckDB can open the file again only when no result is left open.
        with (
            closing(_records(connection, task, config)) as records,
            store.new_shard(task.file) as path,
            path.open("wb") as file,
        ):
            entry = write_tar(file, task.file, task.first_record, records, config.shards.compression == "zstd")
    store.note_finished(entry)
    return entry, True


def _records(connection: duckdb.DuckDBPyConnection, task: ShardTask, config: DataConfig) -> Generator[Record]:
    """Encode the shard's promoters, record by record. Each record is valid until the next one is requested."""
    connection.execute("set threads = 1")
    # The table is stored in the order of its ids. Sorting it again is slower than reading it; the check below is not.
    rows = connection.sql(
        "select id, sequence, expression from promoters "
        "where id between $1 and $2 and ($3 is null or expression >= $3)",
        params=[task.first_id, task.last_id, task.at_or_above],
    )
    buffer = np.empty(BUFFER_BYTES, np.uint8)
    read, last = 0, -1
    for table in rebatch(rows.to_arrow_reader(config.shards.record_promoters), config.shards.record_promoters):
        record = Record(
            tokens=encode_promoters(table["sequence"], config.assay, config.shards.k, buffer),
            expression=table["expression"].to_numpy().astype(np.float32),  # NaN for a missing label
            id=table["id"].to_numpy().astype(np.int64),
        )
        if record.id[0] <= last or (np.diff(record.id) <= 0).any():
            raise UserError(f"{config.dataset.path}: promoters are not in the order of their ids; fix: build it again")
        read, last = read + len(record), int(record.id[-1])
        yield record
    if read != task.rows:
        raise UserError(f"{task.file}: the dataset changed; expected {task.rows:,} rows, got {read:,}")


def write_tar(file: BinaryIO, name: str, first_record: int, records: Iterator[Record], zstd: bool) -> ShardEntry:
    """Write records as a tar. name: of the shard in the index; first_record: number of the first in its split."""
    sha256 = hashlib.sha256()
    entries: list[RecordEntry] = []
    offset = 0
    for number, record in enumerate(records, first_record):
        crc32, size = 0, 0
        for block in record_blocks(number, record, zstd):
            sha256.update(block)
            crc32 = zlib.crc32(block, crc32)
            size += file.write(block)
        entries.append(RecordEntry(offset, size, len(record), crc32))
        offset += size
    sha256.update(END)
    file.write(END)
    return ShardEntry(name, sum(e.rows for e in entries), offset + len(END), sha256.hexdigest(), entries)
