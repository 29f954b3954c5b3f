"""Staleness of shards: comparison with the dataset and configuration."""

from typing import TypeVar

from pipeline.config.schema import DataConfig
from pipeline.dataset.database import DatasetInfo
from pipeline.errors import UserError
from pipeline.shards.index import INDEX, Index, shard_key
from pipeline.shards.location import list_missing, shard_location, shards_command

C = TypeVar("C", bound=DataConfig)


def differences(index: Index, config: DataConfig, info: DatasetInfo) -> list[str]:
    """List the settings in which shards differ from a dataset and configuration, as `setting: present -> requested`."""
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
    if not changed and index.key != shard_key(info.key, config):
        changed = ["assay.upstream or assay.downstream"]
    return changed


def wrong_totals(index: Index, info: DatasetInfo) -> list[str]:
    """List the splits whose promoters in the index and in the dataset are not as many."""
    counts = {split: (index.rows(split), info.split_rows.get(split, 0)) for split in index.splits}
    return [
        f"{split}: expected {rows:,} promoters, got {got:,}" for split, (got, rows) in counts.items() if got != rows
    ]


def adopt_compression(config: C, index: Index) -> C:
    """Set the compression to that of the shards: training reads either, and gets the same batches.

    The sizes of records and shards stay: they decide the order of an epoch.
    """
    return config.model_copy(update={"shards": config.shards.model_copy(update={"compression": index.compression})})


def check_fresh(index: Index, config: DataConfig, info: DatasetInfo) -> None:
    """Raise UserError if shards are missing or stale. Either compression is accepted."""
    config = adopt_compression(config, index)
    place, command = shard_location(config), shards_command(config)
    if index.key != shard_key(info.key, config):
        stale = "; ".join(differences(index, config, info))
        raise UserError(f"{place}: these shards are stale ({stale}); fix: {command}")
    wrong = wrong_totals(index, info)
    if wrong:
        raise UserError(f"{place}/{INDEX}: {'; '.join(wrong)}; fix: {command}")
    unwritten = [split for split, rows in info.split_rows.items() if rows and split not in index.splits]
    if unwritten:
        raise UserError(f"{place}: shards of {', '.join(unwritten)} are not written yet; fix: {command}")
    if place.startswith(("http://", "https://")):
        return  # such a server lists no files; a missing one is reported when it is read
    missing = list_missing(place, index)
    if missing:
        lost = f"{len(missing)} shards are missing or truncated, such as {missing[0]}"
        raise UserError(f"{place}: {lost}; fix: {command}")
