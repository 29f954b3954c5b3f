"""The dataset's promoters -> shards of k-mer ids, written by several processes.

1. the plan says which rows go into which shard (plan.py);
2. each process takes whole shards: rows from the dataset, ids (kmers.py), records (records.py), tar;
3. a finished shard is noted beside it, so that a killed run goes on where it was;
4. when all are there, the index is written and the folder is renamed into place.

The same key gives the same bytes, whatever the number of processes.
"""

import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import Assay, Config
from pipeline.database import DatasetInfo, dataset_info, reading
from pipeline.errors import UserError
from pipeline.index import Index, RecordEntry, ShardEntry, read_index, shard_key, write_index
from pipeline.kmers import id_dtype, ids_of_inserts
from pipeline.plan import ShardTask, plan_shards
from pipeline.products import publish_shards
from pipeline.records import Record, append_record


@dataclass(frozen=True)
class Written:
    """What `write_shards` did. written: shard files made now; the others were there already."""

    folder: str
    key: str
    shards: int
    written: int
    rows: int
    bytes: int


def shard_folder(config: Config) -> Path:
    """Where the shards of this k lie."""
    return Path(config.shards.path) / f"k{config.shards.k}"


def expected_key(config: Config, info: DatasetInfo) -> str:
    """The key that shards of this dataset and configuration have."""
    shards = config.shards
    return shard_key(info.key, shards.k, config.assay, shards.record_promoters, shards.shard_megabytes)


def write_shards(config: Config, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Written:
    """Write the shards of `config.shards.k`, unless they are there. progress(rows done, rows in all)."""
    folder = shard_folder(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with reading(config.dataset.path) as connection:
        info = dataset_info(connection)
        _check_adapters(config, info)
        key = expected_key(config, info)
        with _only_writer(folder):
            if _present(folder, key):
                index = read_index(folder)
                return _summary(folder, index, 0)
            tasks = plan_shards(connection, config)
            # Rounded, so that the order of the sum leaves no trace.
            mean, sd = connection.execute(
                "select round(avg(expression), 6), round(stddev_pop(expression), 6) "
                "from finetune where split = 'train'"
            ).fetchone() or (0.0, 1.0)
            work = folder.with_name(f".{folder.name}.{key[:16]}.partial")
            entries, written = _write_all(tasks, config, work, progress)
            index = Index(
                key=key,
                dataset_key=info.key,
                k=config.shards.k,
                dtype=id_dtype(config.shards.k).name,
                left_flank=config.assay.left_flank,
                right_flank=config.assay.right_flank,
                record_promoters=config.shards.record_promoters,
                label_mean=mean,
                label_sd=sd,
                splits=_by_split(tasks, entries),
            )
            _move_into_place(work, folder, index)
    publish_shards(config.dataset.path, folder, index)
    return _summary(folder, index, written)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel lets go of it when the holder dies."""
    with folder.with_name(f".{folder.name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(f"{folder}: process {lock.read() or '?'} is writing shards here; wait for it") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _present(folder: Path, key: str) -> bool:
    try:
        index = read_index(folder)
    except UserError:
        return False
    sizes = ((folder / shard.file, shard.bytes) for shards in index.splits.values() for shard in shards)
    return index.key == key and all(path.is_file() and path.stat().st_size == size for path, size in sizes)


def _write_all(
    tasks: list[ShardTask], config: Config, work: Path, progress: Callable[[int, int], None]
) -> tuple[list[ShardEntry], int]:
    """Write the shards that are not there yet. Returns all entries in the order of tasks, and how many were made."""
    for split in {task.split for task in tasks}:
        (work / split).parent.mkdir(parents=True, exist_ok=True)
    found = {task.file: _finished(work, task) for task in tasks}
    missing = [task for task in tasks if found[task.file] is None]
    total = sum(task.rows for task in tasks)
    done = total - sum(task.rows for task in missing)
    progress(done, total)
    workers = min(config.shards.workers, len(missing))
    if workers > 1:
        # spawn: a fork would copy DuckDB's threads and locks.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context) as pool:
            futures = {pool.submit(write_shard, task, config, work): task for task in missing}
            try:
                for future in as_completed(futures):
                    found[futures[future].file] = future.result()
                    done += futures[future].rows
                    progress(done, total)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        for task in missing:
            found[task.file] = write_shard(task, config, work)
            done += task.rows
            progress(done, total)
    return [entry for entry in found.values() if entry is not None], len(missing)


def _finished(work: Path, task: ShardTask) -> ShardEntry | None:
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


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def write_shard(task: ShardTask, config: Config, work: Path) -> ShardEntry:
    """Write one shard file below `work`; its note beside it comes last."""
    with reading(config.dataset.path) as connection:
        connection.execute("set threads = 1")
        rows = connection.sql(
            "select id, sequence, expression from promoters "
            "where id between ? and ? and expression >= ? order by id",
            params=[task.first_id, task.last_id, task.at_or_above],
        ).to_arrow_table()
    if rows.num_rows != task.rows:
        raise UserError(f"{task.file}: planned {task.rows:,} rows, found {rows.num_rows:,}: the dataset changed")
    path = work / task.file
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            sink = _HashingFile(file)
            records = _append_records(sink, rows, task, config)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
    entry = ShardEntry(task.file, task.rows, sink.size, sink.digest.hexdigest(), records)
    note = _note(path).with_name(f".{path.name}.{os.getpid()}.json")
    note.write_text(json.dumps(asdict(entry)), encoding="utf-8")
    note.replace(_note(path))
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
            entries.append(
                RecordEntry(offset, sink.size - offset, len(record), sink.record_digest.hexdigest())
            )
    return entries


def encode_rows(rows: pa.Table, assay: Assay, k: int) -> Record:
    """Rows of the dataset (id, sequence, expression) as a record. The adapters are cut off, the flanks set on."""
    text, starts, lengths = string_buffers(rows["sequence"])
    starts = starts + len(assay.left_adapter)
    lengths = lengths - len(assay.left_adapter) - len(assay.right_adapter)
    return Record(
        tokens=ids_of_inserts(text, starts, lengths, k, assay.left_flank, assay.right_flank),
        expression=rows["expression"].to_numpy().astype(np.float32),
        id=rows["id"].to_numpy().astype(np.int64),
    )


def string_buffers(
    column: pa.ChunkedArray,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """ASCII bytes, start and length of each string of a column, without a copy of the bytes."""
    strings = column.cast(pa.large_string()).combine_chunks()
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.chunk(0) if strings.num_chunks else pa.array([], pa.large_string())
    _, offset_buffer, data = strings.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, len(strings) + 1, 8 * strings.offset)
    text = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return text, offsets[:-1], np.diff(offsets)


def _by_split(tasks: list[ShardTask], entries: list[ShardEntry]) -> dict[str, list[ShardEntry]]:
    splits: dict[str, list[ShardEntry]] = {}
    for task, entry in zip(tasks, entries, strict=True):
        splits.setdefault(task.split, []).append(entry)
    return splits


def _move_into_place(work: Path, folder: Path, index: Index) -> None:
    for note in work.glob("*/*.json"):
        note.unlink()
    write_index(work / "index.json", index)
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        work.rename(folder)
        shutil.rmtree(old)
    else:
        work.rename(folder)
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover)


def _summary(folder: Path, index: Index, written: int) -> Written:
    shards = [shard for entries in index.splits.values() for shard in entries]
    rows, size = (sum(getattr(shard, name) for shard in shards) for name in ("rows", "bytes"))
    return Written(str(folder), index.key, len(shards), written, rows, size)


def _check_adapters(config: Config, info: DatasetInfo) -> None:
    for name in ("left_adapter", "right_adapter"):
        built, wanted = getattr(info, name), getattr(config.assay, name)
        if built != wanted:
            raise UserError(
                f"assay.{name} is {wanted!r}, but {config.dataset.path} was built with {built!r}; build it again"
            )
