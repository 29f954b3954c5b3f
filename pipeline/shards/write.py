"""Writing of the promoters of the dataset as shards of k-mer ids.

1. plan.py assigns rows to shards.
2. An executor distributes the shards to processes, here or on a cluster (executors.py).
3. Each process writes a shard (writer.py) to the store, then a note (store.py), so an interrupted run resumes.
4. When all shards exist, the index is written, which publishes them.

Equal keys give equal bytes, for any executor.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from pipeline.config.schema import DataConfig
from pipeline.dataset.built_settings import as_built
from pipeline.dataset.database import DatasetInfo, dataset_info, open_dataset
from pipeline.errors import UserError
from pipeline.io.atomic import recover_folder
from pipeline.io.locks import hold_lock
from pipeline.io.remote import is_remote
from pipeline.shards.executors import Executor, write_locally
from pipeline.shards.index import Index, read_index, shard_key
from pipeline.shards.location import shard_location
from pipeline.shards.plan import SPLITS, compute_label_scale, plan_shards
from pipeline.shards.publish import publish_shards
from pipeline.shards.staleness import list_differences, list_wrong_totals
from pipeline.shards.store import ShardStore, make_store
from pipeline.tokens.kmers import id_dtype

OnProgress = Callable[[int, int, int], None]
"""Called with promoters done, promoters in total, and promoters of shards that existed before."""
OnReplace = Callable[[Index, list[str]], None]
"""Called before shards are replaced, with their index and the reasons, such as `assay.flank: 150 -> 100`."""


@dataclass(frozen=True)
class WriteResult:
    """Outcome of `write_shards`.

    shards, rows, bytes: of all shards; written: shards written by this call; replaced: settings by which the replaced
    shards differed, empty if there were none.
    """

    folder: str
    key: str
    shards: int
    written: int
    rows: int
    bytes: int
    replaced: list[str]
    note: str
    """Remaining problem and its fix, or an empty text."""


def write_shards(
    config: DataConfig,
    splits: Sequence[str] = SPLITS,
    executor: Executor = write_locally,
    on_progress: OnProgress = lambda _done, _total, _before: None,
    on_replace: OnReplace = lambda _index, _reasons: None,
) -> WriteResult:
    """Write the shards of `shards.k` and some splits, unless they exist. Shards of other splits are kept.

    Raises UserError if the dataset has no rows in `splits`, or if a shard cannot be written.
    """
    location, dataset = shard_location(config), config.dataset.path
    with open_dataset(dataset, build_command=config.build_command) as connection:
        info = dataset_info(connection)
    config = as_built(config, info)
    if not any(info.split_rows[split] for split in splits):
        raise UserError(f"{dataset}: no rows in {', '.join(splits)}")
    # Writers on other nodes may have another working directory.
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"path": _make_absolute(dataset)})})
    absolute = _make_absolute(location)
    store = make_store(absolute, shard_key(info.key, config, info.several_labels))
    with hold_lock(_name_lock_file(absolute, config), f"is writing shards to {location}; fix: wait for it"):
        if not is_remote(absolute):
            recover_folder(Path(absolute))
        existing, changed = None, list[str]()
        with suppress(UserError):  # missing, or invalid
            index = read_index(absolute)
            for shard in index.shards:
                list(shard.records)  # those in tables are read only now
            existing = index
        if existing is not None:
            changed = list_differences(existing, config, info)
            if reasons := changed or list_wrong_totals(existing, info):
                on_replace(existing, reasons)
                existing = None
        index, written = _write(config, info, store, existing, splits, executor, on_progress)
    note = ""
    try:
        publish_shards(config.dataset.path, location, index)
    except UserError as error:  # the shards are valid without these relations
        note = f"relations `shards` and `records` are not up to date: {error}; fix: run the same command again"
    return WriteResult(
        folder=location,
        key=index.key,
        shards=len(index.shards),
        written=written,
        rows=sum(shard.rows for shard in index.shards),
        bytes=sum(shard.bytes for shard in index.shards),
        replaced=changed,
        note=note,
    )


def _write(
    config: DataConfig,
    info: DatasetInfo,
    store: ShardStore,
    existing: Index | None,
    splits: Sequence[str],
    executor: Executor,
    on_progress: OnProgress,
) -> tuple[Index, int]:
    """Write the missing shards and publish all. Returns the index, and the number of shards written by this call.

    existing: the index of existing shards of the same key.
    """
    kept = store.find_present(existing) if existing else {}
    published = set(existing.splits) if existing else set()
    requested = [split for split in SPLITS if split in splits or split in published]
    lacking = {split for split in requested if info.split_rows[split]} - published
    if existing and not lacking and len(kept) == len(existing.shards):
        return existing, 0
    store.begin(existing)
    with open_dataset(config.dataset.path) as connection:
        tasks = plan_shards(connection, config, requested)
        mean, sd = compute_label_scale(connection)
    entries, written = dict(kept), 0
    total = sum(task.rows for task in tasks)
    done = before = sum(entry.rows for entry in kept.values())
    on_progress(done, total, before)
    missing = [task for task in tasks if task.file not in kept]
    for entry, is_new in executor(missing, config, store):
        entries[entry.file] = entry
        done, written = done + entry.rows, written + is_new
        on_progress(done, total, before)
    tasks_by_split = groupby(tasks, attrgetter("split"))
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
        splits={split: [entries[task.file] for task in group] for split, group in tasks_by_split},
        labels=info.several_labels,
    )
    store.publish(index)
    return index, written


def _make_absolute(location: str) -> str:
    return location if is_remote(location) else str(Path(location).resolve())


def _name_lock_file(location: str, config: DataConfig) -> Path:
    """Name the lock file: beside the folder, or for a URL beside the dataset, which all writers share."""
    if is_remote(location):
        digest = hashlib.sha256(location.encode()).hexdigest()[:8]
        return Path(config.dataset.path).with_name(f".shards-{digest}.lock")
    return Path(location).with_name(f".{Path(location).name}.lock")
