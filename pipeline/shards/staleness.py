"""Whether shards are those that a dataset and configuration ask for, and what to type where they are not."""

from pathlib import Path
from typing import TypeVar

from pipeline.config.schema import DataConfig
from pipeline.dataset.database import DatasetInfo
from pipeline.errors import UserError
from pipeline.shards.index import Index, shard_key
from pipeline.shards.store import shard_store

C = TypeVar("C", bound=DataConfig)


def shard_place(config: DataConfig) -> str:
    """The folder or URL where the shards of this k lie."""
    return f"{config.shards.path.removeprefix('file://').rstrip('/')}/k{config.shards.k}"


def shard_folder(config: DataConfig) -> Path:
    """The same as a folder of this machine."""
    return Path(shard_place(config))


def expected_key(config: DataConfig, info: DatasetInfo) -> str:
    """The key that shards of this dataset and configuration have."""
    return shard_key(info.key, config.assay, config.shards)


def differences(index: Index, config: DataConfig, info: DatasetInfo) -> list[str]:
    """In what shards differ from those that a dataset and configuration ask for, as `setting: is -> asked for`."""
    assay, shards = config.assay, config.shards
    pairs = {
        "dataset": (index.dataset_key[:12], info.key[:12]),
        "assay.flank": (len(index.left_flank), assay.flank),
        "shards.k": (index.k, shards.k),
        "shards.record_promoters": (index.record_promoters, shards.record_promoters),
        "shards.shard_megabytes": (index.shard_megabytes, shards.shard_megabytes),
        "shards.compression": (index.compression, shards.compression),
    }
    found = [f"{name}: {was} -> {asked}" for name, (was, asked) in pairs.items() if was != asked]
    if not found and index.key != expected_key(config, info):
        found = ["assay.upstream or assay.downstream"]
    return found


def as_written(config: C, index: Index) -> C:
    """The configuration with the compression that the shards have: either is read, and gives the same batches.

    The sizes of records and shards decide the order of an epoch: they have to be those that were asked for.
    """
    return config.model_copy(update={"shards": config.shards.model_copy(update={"compression": index.compression})})


def check_fresh(index: Index, config: DataConfig, info: DatasetInfo) -> None:
    """Raise UserError, naming what it is, where shards are missing or not those of the dataset and settings.

    Shards of either compression will do.
    """
    config = as_written(config, index)
    place, write = shard_place(config), shards_command(config)
    again = f"write them again: {write}"
    key = expected_key(config, info)
    if index.key != key:
        raise UserError(f"{place}: these shards are stale ({'; '.join(differences(index, config, info))}); {again}")
    lacking = [split for split, rows in info.split_rows.items() if rows and split not in index.splits]
    if lacking:
        raise UserError(f"{place}: shards of {', '.join(lacking)} are not written yet; write them: {write}")
    if place.startswith(("http://", "https://")):
        return  # such a server lists no files; one that is not there is named when it is read
    present = shard_store(place, key).present(index)
    missing = [entry.file for entry in index.shards if entry.file not in present]
    if missing:
        raise UserError(f"{place}: {len(missing)} shards are missing or cut off, such as {missing[0]}; {again}")


def shards_command(config: DataConfig) -> str:
    """What to type to write the shards of a configuration."""
    return " ".join(["promoter-bert shards", *config.command_line_words("assay", "dataset", "shards")])
