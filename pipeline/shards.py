"""The dataset's promoters -> shards of k-mer ids, written by several processes.

1. the plan says which rows go into which shard (plan.py);
2. each process takes whole shards (shard_writer.py);
3. a finished shard has a note beside it, so that a killed run goes on where it was;
4. when all are there, the index is written and the folder is renamed into place.

The same key gives the same bytes, whatever the number of processes.
"""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from pipeline.atomic import replace_folder
from pipeline.config import Config
from pipeline.database import DatasetInfo, dataset_info, reading
from pipeline.errors import UserError
from pipeline.index import Index, ShardEntry, read_index, shard_key, write_index
from pipeline.kmers import id_dtype
from pipeline.lock import hold_lock
from pipeline.plan import ShardTask, label_scale, plan_shards
from pipeline.products import publish_shards
from pipeline.settings import as_built
from pipeline.shard_writer import end_with_parent, finished_shard, write_note, write_shard


@dataclass(frozen=True)
class Written:
    """What `write_shards` did. written: shard files made now; the others were there already. replaced: in what the
    shards that stood in the folder before differed, empty where there were none."""

    folder: str
    key: str
    shards: int
    written: int
    rows: int
    bytes: int
    replaced: list[str]


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
    config = as_built(config, info)
    key = expected_key(config, info)
    with hold_lock(folder.with_name(f".{folder.name}.lock"), f"is writing shards to {folder}; wait for it"):
        before = _standing(folder)
        index, written = before, 0
        if before is None or before.key != key or not is_whole(folder, before):
            if before is not None and before.key == key:
                _keep_whole_shards(folder, before, _work_folder(folder, key))
            index, written = _make(config, info, folder, key, progress)
    assert index is not None
    publish_shards(config.dataset.path, folder, index)
    shards = [shard for entries in index.splits.values() for shard in entries]
    rows, size = (sum(getattr(shard, name) for shard in shards) for name in ("rows", "bytes"))
    replaced = differences(before, config, info) if before is not None else []
    return Written(str(folder), key, len(shards), written, rows, size, replaced)


def differences(index: Index, config: Config, info: DatasetInfo) -> list[str]:
    """In what shards differ from those that a dataset and configuration ask for, as `setting: is -> asked for`."""
    assay, shards = config.assay, config.shards
    pairs = {
        "dataset": (index.dataset_key[:12], info.key[:12]),
        "assay.flank": (len(index.left_flank), assay.flank),
        "shards.k": (index.k, shards.k),
        "shards.record_promoters": (index.record_promoters, shards.record_promoters),
        "shards.shard_megabytes": (index.shard_megabytes, shards.shard_megabytes),
    }
    found = [f"{name}: {was} -> {asked}" for name, (was, asked) in pairs.items() if was != asked]
    if not found and index.key != expected_key(config, info):
        found = ["assay.upstream or assay.downstream"]
    return found


def check_fresh(index: Index, config: Config, info: DatasetInfo) -> None:
    """Raise UserError, naming what it is, where shards are missing or not those of the dataset and settings."""
    if not is_whole(shard_folder(config), index):
        raise UserError(f"{shard_folder(config)}: shards are missing; write them again: {shards_command(config)}")
    if index.key != expected_key(config, info):
        raise UserError(
            f"{shard_folder(config)}: these shards are stale ({'; '.join(differences(index, config, info))}); "
            f"write them again: {shards_command(config)}"
        )


def shards_command(config: Config) -> str:
    """What to type to write the shards of a configuration."""
    return " ".join(["promoter-bert shards", *config.given("assay", "dataset", "shards")])


def _make(
    config: Config, info: DatasetInfo, folder: Path, key: str, progress: Callable[[int, int], None]
) -> tuple[Index, int]:
    """Write all shards and the index beside the folder, then rename. Returns how many shards were written now."""
    with reading(config.dataset.path) as connection:
        tasks = plan_shards(connection, config)
        mean, sd = label_scale(connection)
    work = _work_folder(folder, key)
    entries, written = _write_all(tasks, config, work, progress)
    index = Index(
        key=key,
        dataset_key=info.key,
        k=config.shards.k,
        dtype=id_dtype(config.shards.k).name,
        left_flank=config.assay.left_flank,
        right_flank=config.assay.right_flank,
        record_promoters=config.shards.record_promoters,
        shard_megabytes=config.shards.shard_megabytes,
        label_mean=mean,
        label_sd=sd,
        splits=_by_split(tasks, entries),
    )
    _move_into_place(work, folder, index)
    return index, written


def _work_folder(folder: Path, key: str) -> Path:
    """Where shards lie until all are there; named after their key, so that only the same shards are gone on with."""
    return folder.with_name(f".{folder.name}.{key[:16]}.partial")


def _keep_whole_shards(folder: Path, index: Index, work: Path) -> None:
    """For a folder with some shards missing or cut off: take the others over, as if a killed run had written them."""
    for entry in (entry for entries in index.splits.values() for entry in entries):
        target = work / entry.file
        target.parent.mkdir(parents=True, exist_ok=True)
        if (folder / entry.file).exists() and not target.exists():
            try:
                os.link(folder / entry.file, target)
            except OSError:  # no hard links on this file system
                shutil.copyfile(folder / entry.file, target)
            write_note(target, entry)


def _standing(folder: Path) -> Index | None:
    """The index that lies in the folder, if there is a whole one."""
    try:
        return read_index(folder)
    except UserError:
        return None


def is_whole(folder: Path, index: Index) -> bool:
    """Every shard is there in its size; `promoter-bert verify` reads the bytes."""
    sizes = ((folder / shard.file, shard.bytes) for shards in index.splits.values() for shard in shards)
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes)


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
        with ProcessPoolExecutor(workers, context, initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
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
    for litter in {*work.glob("*/*.json"), *work.glob("*/.*")}:  # notes, and what killed writers left
        litter.unlink()
    write_index(work / "index.json", index)
    replace_folder(work, folder)
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover)
