"""Location of the shards of a configuration, a folder or URL, and the index at that location."""

import shlex
from pathlib import Path

from pipeline.config.schema import DataConfig
from pipeline.errors import UserError
from pipeline.io.remote import is_remote
from pipeline.shards.fetch import fetch_index
from pipeline.shards.index import Index, read_index
from pipeline.shards.store import make_store


def shard_location(config: DataConfig) -> str:
    """Return the folder or URL of the shards of `shards.k`."""
    return f"{config.shards.path.removeprefix('file://').rstrip('/')}/k{config.shards.k}"


def shard_folder(config: DataConfig) -> Path:
    """Return the folder of the shards of `shards.k`, for a local `shards.path`."""
    return Path(shard_location(config))


def shards_command(config: DataConfig, path: str | None = None) -> str:
    """Format the command that writes the shards of a configuration. path: another shards.path."""
    arguments = config.format_arguments("assay", "dataset", "shards")
    if path is not None:
        others = [argument for argument in arguments if not shlex.split(argument)[0].startswith("shards.path=")]
        arguments = [*others, f"shards.path={shlex.quote(path)}"]
    return " ".join(["promoter-bert shards", *arguments])


def find_index(config: DataConfig) -> Index:
    """Read and validate the index of the shards of `shards.k`. Raises UserError if it is missing or invalid."""
    location = shard_location(config)
    return fetch_index(location) if is_remote(location) else read_index(location, shards_command(config))


def find_complete_index(config: DataConfig) -> Index | None:
    """Read the same index. Returns None if it is missing or invalid, or if a local shard is missing.

    Shards at a URL are not checked: they are the same for every host, and reading a missing one raises an error.
    """
    try:
        index = find_index(config)
    except UserError:
        return None
    location = shard_location(config)
    return index if is_remote(location) or not list_missing(location, index) else None


def list_missing(location: str, index: Index) -> list[str]:
    """List the files of an index that are missing, or have another size, in a folder or at a URL."""
    present = make_store(location, index.key).find_present(index)
    return [shard.file for shard in index.shards if shard.file not in present]
