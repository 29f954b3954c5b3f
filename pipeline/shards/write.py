"""The dataset's promoters -> shards of k-mer ids.

1. the plan says which rows go into which shard (plan.py);
2. an executor hands whole shards to processes, here or on a cluster (executors.py);
3. each writes a shard (shard_writer.py) to where it belongs, with a note once it is whole (shard_store.py), so that a
   killed run goes on where it was;
4. when all are there, the index is written and the shards can be seen.

The same key gives the same bytes, whoever writes them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.schema import DataConfig
from pipeline.dataset.built_settings import as_built
from pipeline.dataset.database import DatasetInfo, dataset_info, reading
from pipeline.errors import UserError
from pipeline.io.atomic import recover_folder
from pipeline.io.locks import hold_lock
from pipeline.io.remote import is_remote
from pipeline.shards.executors import Executor, here
from pipeline.shards.index import Index, ShardEntry
from pipeline.shards.plan import SPLITS, label_scale, plan_shards
from pipeline.shards.publish import publish_shards
from pipeline.shards.staleness import differences, expected_key, shard_place
from pipeline.shards.store import ShardStore, shard_store, standing_index
from pipeline.shards.writer import WriteJob
from pipeline.tokens.kmers import id_dtype

Progress = Callable[[int, int, int], None]
"""Called with promoters done, promoters in all, and those of shards that were complete before."""


@dataclass(frozen=True)
class Written:
    """What `write_shards` did. written: shard files made now; the others were there already. replaced: in what the
    shards that stood there before differed, empty where there were none."""

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
    executor: Executor = here,
    progress: Progress = lambda _done, _total, _before: None,
) -> Written:
    """Write the shards of `config.shards.k` and some splits, unless they are there; those of other splits stay."""
    place, given = shard_place(config), config.dataset.path
    with reading(config.dataset.path) as connection:
        info = dataset_info(connection)
    config = as_built(config, info)
    if not any(info.split_rows[split] for split in splits):
        raise UserError(f"{given} has no rows in {', '.join(splits)}")
    # Writers elsewhere know no working directory.
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"path": _absolute(given)})})
    absolute = _absolute(place)
    store = shard_store(absolute, expected_key(config, info))
    with hold_lock(_lock_file(absolute, config), f"is writing shards to {place}; wait for it"):
        if not is_remote(absolute):
            recover_folder(Path(absolute))
        before = standing_index(place)
        standing = before if before is not None and before.key == store.key else None
        there = _there(store, standing)
        wanted = [split for split in SPLITS if split in splits or (standing and split in standing.splits)]
        if standing is not None and _complete(standing, there, wanted, info):
            index, written = standing, 0
        else:
            store.begin(standing)
            index, written = _write(config, info, store, wanted, there, executor, progress)
            store.publish(index)
    note = ""
    try:
        publish_shards(config.dataset.path, place, index)
    except UserError as error:
        note = f"relations `shards` and `records` are not up to date: {error}; the same command brings them there"
    shards = list(index.shards)
    rows, size = (sum(getattr(shard, name) for shard in shards) for name in ("rows", "bytes"))
    replaced = differences(before, config, info) if before is not None else []
    return Written(place, index.key, len(shards), written, rows, size, replaced, note)


def _there(store: ShardStore, standing: Index | None) -> dict[str, ShardEntry]:
    """The shards of a finished index that need not be written again, by file. Reads no bytes; verify does."""
    if standing is None:
        return {}
    present = store.present(standing)
    return {entry.file: entry for entry in standing.shards if entry.file in present}


def _complete(standing: Index, there: dict[str, ShardEntry], wanted: Sequence[str], info: DatasetInfo) -> bool:
    """Whether every shard of the index is there, and every split that is wanted and has rows is in it."""
    lacking = [split for split in wanted if info.split_rows[split] and split not in standing.splits]
    return not lacking and all(entry.file in there for entry in standing.shards)


def _write(
    config: DataConfig,
    info: DatasetInfo,
    store: ShardStore,
    splits: Sequence[str],
    there: dict[str, ShardEntry],
    executor: Executor,
    progress: Progress,
) -> tuple[Index, int]:
    """Write what is not there. Returns the index of all, and how many shards were written now."""
    with reading(config.dataset.path) as connection:
        tasks = plan_shards(connection, config, splits)
        mean, sd = label_scale(connection)
    entries = dict(there)
    total = sum(task.rows for task in tasks)
    done = before = sum(entry.rows for entry in there.values())
    written = 0
    progress(done, total, before)
    missing = [task for task in tasks if task.file not in there]
    for task, shard in executor(missing, WriteJob(config, store)):
        entries[task.file] = shard.entry
        done, written = done + task.rows, written + shard.now
        progress(done, total, before)
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


def _absolute(place: str) -> str:
    return place if is_remote(place) else str(Path(place).resolve())


def _lock_file(place: str, config: DataConfig) -> Path:
    """Beside the folder; for a URL beside the dataset, which its writers have in common."""
    if is_remote(place):
        digest = hashlib.sha256(place.encode()).hexdigest()[:8]
        return Path(config.dataset.path).with_name(f".shards-{digest}.lock")
    folder = Path(place)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot make this folder: {error.strerror}") from None
    return folder.with_name(f".{folder.name}.lock")
