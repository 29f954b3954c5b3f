"""Writer of one shard: rows of the dataset -> ids -> records -> tar file -> note."""

import hashlib
import socket
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import BinaryIO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.schema import DataConfig
from pipeline.dataset.database import dataset_info, open_dataset
from pipeline.dataset.rows.names import quoted
from pipeline.errors import UserError
from pipeline.io.arrow import rebatch
from pipeline.shards.index import ShardEntry, shard_key
from pipeline.shards.plan import ShardTask
from pipeline.shards.record_tables import RecordEntry
from pipeline.shards.records import END, Record, serialize_record
from pipeline.shards.store import ShardStore
from pipeline.tokens.kmers import encode_promoters

BUFFER_BYTES = 8 * 2**20
"""Size of the buffer for the ids of a record, which are 1.6 MB with the settings of the paper."""

ShardResult = tuple[ShardEntry, bool]
"""The entry of a shard, and whether it was written now instead of by an interrupted run."""


def write_shard(task: ShardTask, config: DataConfig, store: ShardStore) -> ShardResult:
    """Write one shard, then its note file, unless an earlier run already finished this shard.

    config: with the settings of the build. Memory: a few records and the read-ahead of DuckDB, for any size of shard.
    Raises UserError if the dataset has changed since the plan was made, or if the shard cannot be written.
    """
    existing = store.find_finished(task.file)
    if existing is not None:
        return existing, False
    with open_dataset(config.dataset.path) as connection:
        info = dataset_info(connection)
        if shard_key(info.key, config, info.several_labels) != store.key:
            host = socket.gethostname()
            raise UserError(f"{config.dataset.path}: another dataset on {host}; fix: copy the dataset to that host")
        # Closed even after an error: DuckDB can open the file again only if no result is open.
        with (
            closing(_encode_records(connection, task, config, info.several_labels)) as records,
            store.new_shard(task.file) as path,
            path.open("wb") as file,
        ):
            entry = write_tar(file, task.file, task.first_record, records, config.shards.compression == "zstd")
    store.note_finished(entry)
    return entry, True


def _encode_records(
    connection: duckdb.DuckDBPyConnection, task: ShardTask, config: DataConfig, labels: list[str]
) -> Generator[Record]:
    """Encode the promoters of a shard by record. A record is valid until the next one is requested.

    labels: columns of several labels; empty for one label.
    """
    connection.execute("set threads = 1")
    # The table is stored in the order of its ids, which is checked below. Sorting it would take longer than reading.
    columns = "".join(f", {quoted(name)} as label_{number}" for number, name in enumerate(labels))
    rows = connection.sql(
        f"select id, sequence, expression{columns} from promoters "
        "where id between $1 and $2 and ($3 is null or expression >= $3)",
        params=[task.first_id, task.last_id, task.at_or_above],
    )
    buffer = np.empty(BUFFER_BYTES, np.uint8)
    read, last = 0, -1
    for table in rebatch(rows.to_arrow_reader(config.shards.record_promoters), config.shards.record_promoters):
        record = Record(
            tokens=encode_promoters(table["sequence"], config.assay, config.shards.k, buffer),
            expression=_read_labels(table, len(labels)),
            id=table["id"].to_numpy().astype(np.int64),
        )
        if record.id[0] <= last or (np.diff(record.id) <= 0).any():
            raise UserError(
                f"{config.dataset.path}: promoters are not in the order of their ids; fix: build the dataset again"
            )
        read, last = read + len(record), int(record.id[-1])
        yield record
    if read != task.rows:
        raise UserError(
            f"{task.file}: the dataset changed: expected {task.rows:,} rows, got {read:,}; fix: run the command again"
        )


def _read_labels(table: pa.Table, labels: int) -> npt.NDArray[np.float32]:
    """Read the labels of a table: (rows,), or (rows, labels) for several; NaN for a missing label."""
    values = np.empty((table.num_rows, labels or 1), np.float32)
    for number, name in enumerate([f"label_{number}" for number in range(labels)] or ["expression"]):
        values[:, number] = table[name].to_numpy()
    return values if labels else values[:, 0]


def write_tar(file: BinaryIO, name: str, first_record: int, records: Iterator[Record], zstd: bool) -> ShardEntry:
    """Write records as a tar. name: of the shard in the index; first_record: number of the first one in its split."""
    sha256 = hashlib.sha256()
    entries: list[RecordEntry] = []
    offset = 0
    for number, record in enumerate(records, first_record):
        crc32, size = 0, 0
        for block in serialize_record(number, record, zstd):
            sha256.update(block)
            crc32 = zlib.crc32(block, crc32)
            size += file.write(block)
        entries.append(RecordEntry(offset, size, len(record), crc32))
        offset += size
    sha256.update(END)
    file.write(END)
    return ShardEntry(name, sum(e.rows for e in entries), offset + len(END), sha256.hexdigest(), entries)
