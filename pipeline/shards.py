"""The dataset's promoters -> shards of k-mer ids, written by several processes.

1. the plan says which rows go into which shard (plan.py);
2. each process takes whole shards (shard_writer.py);
3. a finished shard has a note beside it, so that a killed run goes on where it was;
4. when all are there, the index is written and the folder is renamed into place.

The same key gives the same bytes, whatever the number of processes.
"""

import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.database import DatasetInfo, dataset_info, reading
from pipeline.errors import UserError
from pipeline.index import Index, ShardEntry, read_index, shard_key, write_index
from pipeline.kmers import id_dtype
from pipeline.lock import hold_lock
from pipeline.plan import ShardTask, plan_shards
from pipeline.products import publish_shards
from pipeline.shard_writer import end_with_parent, finished_shard, write_shard


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
    with hold_lock(folder.with_name(f".{folder.name}.lock"), f"is writing shards to {folder}; wait for it"):
        written = 0 if _present(folder, key) else _make(config, info, folder, key, progress)
    index = read_index(folder)
    publish_shards(config.dataset.path, folder, index)
    return _summary(folder, index, written)


def _make(config: Config, info: DatasetInfo, folder: Path, key: str, progress: Callable[[int, int], None]) -> int:
    """Write all shards and the index beside the folder, then rename. Returns how many shards were written now."""
    with reading(config.dataset.path) as connection:
        tasks = plan_shards(connection, config)
        # Rounded, so that the order of the sum leaves no trace.
        mean, sd = connection.execute(
            "select round(avg(expression), 6), round(stddev_pop(expression), 6) from finetune where split = 'train'"
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
    return written


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
    found = {task.file: finished_shard(work, task) for task in tasks}
    missing = [task for task in tasks if found[task.file] is None]
    total = sum(task.rows for task in tasks)
    done = total - sum(task.rows for task in missing)
    progress(done, total)
    workers = min(config.shards.workers, len(missing))
    if workers > 1:
        # spawn: a fork would copy DuckDB's threads and locks.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
            futures = {pool.submit(write_shard, task, config, work): task for task in missing}
            try:
                for future in as_completed(futures):
                    found[futures[future].file] = future.result()
                    done += futures[future].rows
                    progress(done, total)
            except BrokenProcessPool:
                raise UserError(
                    "a writer process was killed, perhaps for want of memory; the same command goes on from the "
                    "finished shards (shards.workers=1 needs the least memory)"
                ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        for task in missing:
            found[task.file] = write_shard(task, config, work)
            done += task.rows
            progress(done, total)
    return [entry for entry in found.values() if entry is not None], len(missing)


def _by_split(tasks: list[ShardTask], entries: list[ShardEntry]) -> dict[str, list[ShardEntry]]:
    splits: dict[str, list[ShardEntry]] = {}
    for task, entry in zip(tasks, entries, strict=True):
        splits.setdefault(task.split, []).append(entry)
    return splits


def _move_into_place(work: Path, folder: Path, index: Index) -> None:
    for litter in (*work.glob("*/*.json"), *work.glob("*/.*")):  # notes, and what killed writers left
        litter.unlink()
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
