"""Staleness of shards: comparison with the dataset and the configuration."""

import shlex
from pathlib import Path
from typing import TypeVar

from pipeline.config.schema import DataConfig
from pipeline.dataset.database import DatasetInfo
from pipeline.errors import UserError
from pipeline.shards.index import INDEX, Index, shard_key
from pipeline.shards.location import list_missing, shard_location, shards_command

C = TypeVar("C", bound=DataConfig)


def list_differences(index: Index, config: DataConfig, info: DatasetInfo) -> list[str]:
    """List the settings by which shards differ from a dataset and configuration, as `setting: old -> new`."""
    assay, shards = config.assay, config.shards
    pairs = {
        "dataset": (index.dataset_key[:12], info.key[:12]),
        "assay.flank": (len(index.left_flank), assay.flank),
        "shards.k": (index.k, shards.k),
        "shards.record_promoters": (index.record_promoters, shards.record_promoters),
        "shards.shard_megabytes": (index.shard_megabytes, shards.shard_megabytes),
        "shards.compression": (index.compression, shards.compression),
    }
    changed = [f"{name}: {old} -> {new}" for name, (old, new) in pairs.items() if old != new]
    if not changed and index.key != shard_key(info.key, config, info.several_labels):
        changed = ["assay.upstream or assay.downstream"]
    return changed


def list_wrong_totals(index: Index, info: DatasetInfo) -> list[str]:
    """List the splits with another number of promoters in the index than in the dataset."""
    counts = {split: (index.rows(split), info.split_rows.get(split, 0)) for split in index.splits}
    return [
        f"{split}: expected {rows:,} {info.sequence_name}s, got {got:,}"
        for split, (got, rows) in counts.items()
        if got != rows
    ]


def adopt_compression(config: C, index: Index) -> C:
    """Set `shards.compression` to the compression of the shards. It does not change the batches.

    The sizes of records and shards stay, because they determine the order of an epoch.
    """
    return config.model_copy(update={"shards": config.shards.model_copy(update={"compression": index.compression})})


def _describe_choices(config: DataConfig, command: str) -> str:
    """Describe the two causes of another dataset key. An index has no path of its dataset, so it cannot decide."""
    stem, used = Path(config.dataset.path).stem, config.shards.path.rstrip("/")
    other = next(path for path in (f"{stem}-shards", f"{stem}-shards-2") if path != used)
    return (
        f"fix: if they are the shards of another dataset file, keep them: {shards_command(config, other)}, then train "
        f"with shards.path={shlex.quote(other)}; if {config.dataset.path} was built again, replace them: {command}"
    )


def check_fresh(index: Index, config: DataConfig, info: DatasetInfo) -> None:
    """Raise UserError if shards are missing, incomplete or stale. Any compression is accepted."""
    config = adopt_compression(config, index)
    location, command = shard_location(config), shards_command(config)
    if index.key != shard_key(info.key, config, info.several_labels):
        stale = "; ".join(list_differences(index, config, info))
        fix = f"fix: {command}" if index.dataset_key == info.key else _describe_choices(config, command)
        raise UserError(f"{location}: these shards are stale ({stale}); {fix}")
    wrong = list_wrong_totals(index, info)
    if wrong:
        raise UserError(f"{location}/{INDEX}: {'; '.join(wrong)}; fix: {command}")
    unwritten = [split for split, rows in info.split_rows.items() if rows and split not in index.splits]
    if unwritten:
        raise UserError(f"{location}: shards of {', '.join(unwritten)} are not written; fix: {command}")
    if location.startswith(("http://", "https://")):
        return  # HTTP servers do not list files; reading a missing one raises an error
    missing = list_missing(location, index)
    if missing:
        problem = f"{len(missing)} shards are missing or truncated, such as {missing[0]}"
        raise UserError(f"{location}: {problem}; fix: {command}")
