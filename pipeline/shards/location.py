"""Location of the shards that a configuration names, a folder or URL, and their index there."""

from pathlib import Path

from pipeline.config.schema import DataConfig
from pipeline.errors import UserError
from pipeline.io.remote import is_remote
from pipeline.shards.fetch import fetch_index
from pipeline.shards.index import Index, read_index
from pipeline.shards.store import shard_store


def shard_location(config: DataConfig) -> str:
    """Name the folder or URL of the shards of `shards.k`."""
    return f"{config.shards.path.removeprefix('file://').rstrip('/')}/k{config.shards.k}"


def shard_folder(config: DataConfig) -> Path:
    """Name the same as a local folder."""
    return Path(shard_location(config))


def shards_command(config: DataConfig) -> str:
    """Make the command that writes the shards of a configuration."""
    return " ".join(["promoter-bert shards", *config.format_arguments("assay", "dataset", "shards")])


def find_index(config: DataConfig) -> Index:
    """Read the index of the shards of `shards.k`. Raises UserError if there is none."""
    place = shard_location(config)
    return fetch_index(place) if is_remote(place) else read_index(place, shards_command(config))


def find_complete_index(config: DataConfig) -> Index | None:
    """Read the same index; None if it, or a shard of a folder, is missing.

    A URL is the same for every host: a missing shard is reported when it is read.
    """
    try:
        index = find_index(config)
    except UserError:
        return None
    place = shard_location(config)
    return index if is_remote(place) or not list_missing(place, index) else None


def list_missing(place: str, index: Index) -> list[str]:
    """List the files of an index that are missing, or of another size, at a folder or URL."""
    present = shard_store(place, index.key).find_present(index)
    return [shard.file for shard in index.shards if shard.file not in present]
