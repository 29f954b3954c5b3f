"""Write the dataset's promoters as shards of k-mer ids.

1. plan.py assigns rows to shards;
2. an executor hands whole shards to processes, here or on a cluster (executors.py);
3. each writes a shard (writer.py) to its store, with a note once it is finished (store.py), so a killed run resumes;
4. when all exist, the index is written and the shards become visible.

The same key gives the same bytes, whoever writes them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.schema import DataConfig
from pipeline.dataset.built_settings import as_built
from pipeline.dataset.database import DatasetInfo, dataset_info, open_dataset
from pipeline.errors import UserError
from pipeline.io.atomic import recover_folder
from pipeline.io.locks import hold_lock
from pipeline.io.remote import is_remote
from pipeline.shards.executors import Executor, write_locally
from pipeline.shards.index import Index, ShardEntry, read_index
from pipeline.shards.location import shard_place
from pipeline.shards.plan import SPLITS, label_scale, plan_shards
from pipeline.shards.publish import publish_shards
from pipeline.shards.staleness import differences, expected_key
from pipeline.shards.store import ShardStore, shard_store
from pipeline.shards.writer import WriteJob
from pipeline.tokens.kmers import id_dtype

OnProgress = Callable[[int, int, int], None]
"""Called with promoters done, promoters in all, and those of shards that were complete before."""


@dataclass(frozen=True)
class WriteResult:
    """Outcome of `write_shards`. written: shard files made now, beside those that existed; replaced: settings in which
    the shards before differed, empty if there were none."""

    folder: str
    key: str
    shards: int
    written: int
    rows: int
    bytes: int
    replaced: list[str]
    note: str
    """What is left to do, or an empty text."""


def write_shards(
    config: DataConfig,
    splits: Sequence[str] = SPLITS,
    executor: Executor = write_locally,
    on_progress: OnProgress = lambda _done, _total, _before: None,
) -> WriteResult:
    """Write the shards of `config.shards.k` and some splits, unless they exist; those of other splits stay."""
    place, dataset = shard_place(config), config.dataset.path
    with open_dataset(dataset) as connection:
        info = dataset_info(connection)
    config = as_built(config, info)
    if not any(info.split_rows[split] for split in splits):
        raise UserError(f"{dataset}: no rows in {', '.join(splits)}")
    # Writers on other nodes have another working directory.
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"path": _absolute(dataset)})})
    absolute = _absolute(place)
    store = shard_store(absolute, expected_key(config, info))
    with hold_lock(_lock_file(absolute, config), f"is writing shards to {place}; wait for it"):
        if not is_remote(absolute):
            recover_folder(Path(absolute))
        before = _existing_index(absolute)
        existing = before if before is not None and before.key == store.key else None
        kept = _kept_shards(store, existing)
        wanted = [split for split in SPLITS if split in splits or (existing and split in existing.splits)]
        if existing is not None and _is_complete(existing, kept, wanted, info):
            index, written = existing, 0
        else:
            store.begin(existing)
            index, written = _write(config, info, store, wanted, kept, executor, on_progress)
            store.publish(index)
    shards = list(index.shards)
    return WriteResult(
        folder=place,
        key=index.key,
        shards=len(shards),
        written=written,
        rows=sum(shard.rows for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        replaced=differences(before, config, info) if before is not None else [],
        note=_publish(config.dataset.path, place, index),
    )


def _existing_index(place: str) -> Index | None:
    """Read the index of a folder or URL; None if there is no valid one."""
    try:
        return read_index(place)
    except UserError:
        return None


def _kept_shards(store: ShardStore, existing: Index | None) -> dict[str, ShardEntry]:
    """Find the shards of an index that need not be written again, by file. Reads no bytes; verify does."""
    if existing is None:
        return {}
    present = store.present(existing)
    return {entry.file: entry for entry in existing.shards if entry.file in present}


def _is_complete(existing: Index, kept: dict[str, ShardEntry], wanted: Sequence[str], info: DatasetInfo) -> bool:
    """Say whether every shard of an index exists, and it holds every wanted split that has rows."""
    lacking = [split for split in wanted if info.split_rows[split] and split not in existing.splits]
    return not lacking and all(entry.file in kept for entry in existing.shards)


def _write(
    config: DataConfig,
    info: DatasetInfo,
    store: ShardStore,
    splits: Sequence[str],
    kept: dict[str, ShardEntry],
    executor: Executor,
    on_progress: OnProgress,
) -> tuple[Index, int]:
    """Write the shards that do not exist. Returns the index of all, and how many were written now."""
    with open_dataset(config.dataset.path) as connection:
        tasks = plan_shards(connection, config, splits)
        mean, sd = label_scale(connection)
    entries = dict(kept)
    total = sum(task.rows for task in tasks)
    done = before = sum(entry.rows for entry in kept.values())
    written = 0
    on_progress(done, total, before)
    missing = [task for task in tasks if task.file not in kept]
    for task, shard in executor(missing, WriteJob(config, store)):
        entries[task.file] = shard.entry
        done, written = done + task.rows, written + shard.written
        on_progress(done, total, before)
    by_split: dict[str, list[ShardEntry]] = {}
    for task in tasks:
        by_split.setdefault(task.split, []).append(entries[task.file])
    index = Index(
        key=store.key,
        dataset_key=info.key,
        k=config.shards.k,
        dtype=id_dtype(config.shards.k).name,
        left_flank=config.assay.left_flank,
        right_flank=config.assay.right_flank,
        record_promoters=config.shards.record_promoters,
        shard_megabytes=config.shards.shard_megabytes,
        compression=config.shards.compression,
        label_mean=mean,
        label_sd=sd,
        splits=by_split,
    )
    return index, written


def _publish(dataset: str, place: str, index: Index) -> str:
    """Publish the index in the dataset. Returns what is left to do, or an empty text: the shards are good without."""
    try:
        publish_shards(dataset, place, index)
    except UserError as error:
        return f"relations `shards` and `records` are not up to date: {error}; run the same command to update them"
    return ""


def _absolute(place: str) -> str:
    return place if is_remote(place) else str(Path(place).resolve())


def _lock_file(place: str, config: DataConfig) -> Path:
    """Name the lock file: beside the folder; for a URL beside the dataset, which all its writers share."""
    if is_remote(place):
        digest = hashlib.sha256(place.encode()).hexdigest()[:8]
        return Path(config.dataset.path).with_name(f".shards-{digest}.lock")
    folder = Path(place)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot make this folder: {error.strerror}") from None
    return folder.with_name(f".{folder.name}.lock")
