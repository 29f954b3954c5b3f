"""The shards that a configuration names, in a folder or at a URL, with their index."""

from pathlib import Path

from pipeline.config import Config
from pipeline.database import DatasetInfo
from pipeline.errors import UserError
from pipeline.index import Index, read_index
from pipeline.remote import is_remote
from pipeline.shard_cache import ShardCache, read_remote_index
from pipeline.shards import check_fresh, differences, expected_key, shard_folder, shards_command


def open_shards(config: Config) -> tuple[Path | ShardCache, Index]:
    """Where the stream reads the shards of `shards.k` from. Raises UserError where there are none."""
    shards = config.shards
    if not is_remote(shards.path):
        folder = shard_folder(config)
        if not (folder / "index.json").exists():
            raise UserError(f"{folder}: no shards here; write them: {shards_command(config)}")
        return folder, read_index(folder)
    url = f"{shards.path.rstrip('/')}/k{shards.k}"
    index = read_remote_index(url)
    limit = int(shards.cache_gigabytes * 1e9)
    largest = max((shard.bytes for entries in index.splits.values() for shard in entries), default=0)
    if limit < 2 * largest:
        raise UserError(
            f"shards.cache_gigabytes is {shards.cache_gigabytes:g}, but {url} has shards of {largest / 1e9:.3g} GB: "
            f"expected twice as much at least, {2 * largest / 1e9:.3g}"
        )
    return ShardCache(url, Path(shards.cache), limit), index


def check_usable(shards: Path | ShardCache, index: Index, config: Config, info: DatasetInfo) -> None:
    """Raise UserError where shards are missing or not those of the dataset and settings. Files at a URL are looked for
    when they are read."""
    if isinstance(shards, Path):
        check_fresh(index, config, info)
    elif index.key != expected_key(config, info):
        raise UserError(
            f"{shards}: these shards are stale ({'; '.join(differences(index, config, info))}); "
            "name others by shards.path, or write these again"
        )
