"""One shard: rows from the dataset -> ids -> records -> a tar file, and a note beside it when it is whole."""

import ctypes
import hashlib
import io
import json
import os
import signal
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.atomic import new_file, write_text
from pipeline.config import Assay, Config
from pipeline.database import reading
from pipeline.encode import encode_promoters
from pipeline.errors import UserError
from pipeline.index import RecordEntry, ShardEntry
from pipeline.plan import ShardTask
from pipeline.records import Record, append_record


def end_with_parent(parent: int) -> None:
    """In a writer process: have Linux end it with the process that started it, kill -9 of that included."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it was asked for
        os._exit(1)


def finished_shard(work: Path, task: ShardTask) -> ShardEntry | None:
    """The note of a shard that an earlier, interrupted run finished; its bytes are hashed again."""
    path = work / task.file
    try:
        values = json.loads(_note(path).read_text(encoding="utf-8"))
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != values["sha256"]:
                return None
    except (OSError, ValueError, KeyError):
        return None
    return ShardEntry(**{**values, "records": [RecordEntry(**record) for record in values["records"]]})


def write_note(path: Path, entry: ShardEntry) -> None:
    """Say that the shard file at `path` is whole."""
    write_text(_note(path), json.dumps(asdict(entry)))


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def write_shard(task: ShardTask, config: Config, work: Path) -> ShardEntry:
    """Write one shard file below `work`; its note beside it comes last."""
    with reading(config.dataset.path) as connection:
        connection.execute("set threads = 1")
        rows = connection.sql(
            "select id, sequence, expression from promoters "
            "where id between $1 and $2 and ($3 is null or expression >= $3) order by id",
            params=[task.first_id, task.last_id, task.at_or_above],
        ).to_arrow_table()
    if rows.num_rows != task.rows:
        raise UserError(f"{task.file}: planned {task.rows:,} rows, found {rows.num_rows:,}: the dataset changed")
    path = work / task.file
    with new_file(path) as temporary, temporary.open("wb") as file:
        sink = _HashingFile(file)
        records = _append_records(sink, rows, task, config)
    entry = ShardEntry(task.file, task.rows, sink.size, sink.digest.hexdigest(), records)
    write_note(path, entry)
    return entry


class _HashingFile(io.RawIOBase):
    """Passes on what is written and keeps its sha256 and size."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.record_digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.digest.update(data)
        self.record_digest.update(data)
        self.size += len(data)
        return self.file.write(data)


def _append_records(sink: _HashingFile, rows: pa.Table, task: ShardTask, config: Config) -> list[RecordEntry]:
    entries = []
    size = config.shards.record_promoters
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
        for number, start in enumerate(range(0, rows.num_rows, size)):
            record = encode_rows(rows.slice(start, size), config.assay, config.shards.k)
            offset, sink.record_digest = sink.size, hashlib.sha256()
            append_record(tar, task.first_record + number, record)
            entries.append(RecordEntry(offset, sink.size - offset, len(record), sink.record_digest.hexdigest()))
    return entries


def encode_rows(rows: pa.Table, assay: Assay, k: int) -> Record:
    """Rows of the dataset (id, sequence, expression) as a record."""
    return Record(
        tokens=encode_promoters(rows["sequence"], assay, k),
        expression=rows["expression"].to_numpy().astype(np.float32),  # NaN where there is no label
        id=rows["id"].to_numpy().astype(np.int64),
    )
