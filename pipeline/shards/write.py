"""Write the dataset's promoters as shards of k-mer ids.

1. plan.py assigns rows to shards;
2. an executor hands whole shards to processes, here or on a cluster (executors.py);
3. each writes a shard (writer.py) to its store, with a note once it is finished (store.py), so a killed run resumes;
4. when all exist, the index is written and the shards become visible.

The same key gives the same bytes, whoever writes them.
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
from pipeline.shards.staleness import differences, wrong_totals
from pipeline.shards.store import ShardStore, shard_store
from pipeline.tokens.kmers import id_dtype

OnProgress = Callable[[int, int, int], None]
"""Called with promoters done, promoters in all, and those of shards that were complete before."""
OnReplace = Callable[[Index, list[str]], None]
"""Called before shards are replaced, with their index and the reasons, such as `assay.flank: 150 -> 100`."""


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
    """Advice on what remains to be done, or an empty text."""


def write_shards(
    config: DataConfig,
    splits: Sequence[str] = SPLITS,
    executor: Executor = write_locally,
    on_progress: OnProgress = lambda _done, _total, _before: None,
    on_replace: OnReplace = lambda _index, _reasons: None,
) -> WriteResult:
    """Write the shards of `config.shards.k` and some splits, unless they exist; those of other splits stay.

    Raises UserError if the dataset has no rows in `splits`, or if a shard cannot be written.
    """
    place, dataset = shard_location(config), config.dataset.path
    with open_dataset(dataset) as connection:
        info = dataset_info(connection)
    config = as_built(config, info)
    if not any(info.split_rows[split] for split in splits):
        raise UserError(f"{dataset}: no rows in {', '.join(splits)}")
    # Writers on other nodes have another working directory.
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"path": _absolute(dataset)})})
    absolute = _absolute(place)
    store = shard_store(absolute, shard_key(info.key, config))
    with hold_lock(_lock_file(absolute, config), f"is writing shards to {place}; wait for it"):
        if not is_remote(absolute):
            recover_folder(Path(absolute))
        before = None
        with suppress(UserError):  # missing, or invalid
            before = read_index(absolute)
        wrong = wrong_totals(before, info) if before is not None else []
        existing = before if before is not None and before.key == store.key and not wrong else None
        if before is not None and existing is None:
            on_replace(before, differences(before, config, info) or wrong)
        index, written = _write(config, info, store, existing, splits, executor, on_progress)
    note = ""
    try:
        publish_shards(config.dataset.path, place, index)
    except UserError as error:  # the shards are valid without
        note = f"relations `shards` and `records` are not up to date: {error}; fix: run the same command again"
    return WriteResult(
        folder=place,
        key=index.key,
        shards=len(index.shards),
        written=written,
        rows=sum(shard.rows for shard in index.shards),
        bytes=sum(shard.bytes for shard in index.shards),
        replaced=differences(before, config, info) if before is not None else [],
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
    """Write the shards that do not exist and publish them. Returns the index of all, and how many were written now.

    existing: the index of shards of the same key.
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
    )
    store.publish(index)
    return index, written


def _absolute(place: str) -> str:
    return place if is_remote(place) else str(Path(place).resolve())


def _lock_file(place: str, config: DataConfig) -> Path:
    """Name the lock file: beside the folder; for a URL beside the dataset, which all its writers share."""
    if is_remote(place):
        digest = hashlib.sha256(place.encode()).hexdigest()[:8]
        return Path(config.dataset.path).with_name(f".shards-{digest}.lock")
    return Path(place).with_name(f".{Path(place).name}.lock")
