"""The shards that a configuration names, in a folder or at a URL: their index, and where the stream reads them from."""

from pathlib import Path

from pipeline.config.schema import DataConfig
from pipeline.errors import UserError
from pipeline.io.remote import is_remote
from pipeline.shards.index import INDEX, Index, read_index
from pipeline.shards.staleness import shard_place, shards_command
from pipeline.shards.store import FolderStore
from pipeline.stream.cache import FETCHERS, ShardCache, read_remote_index
from pipeline.stream.shuffle import SHARDS_TOGETHER


def find_index(config: DataConfig) -> Index:
    """The index of the shards of `shards.k`. Raises UserError where there is none."""
    place = shard_place(config)
    if is_remote(place):
        return read_remote_index(place)
    if not Path(place, INDEX).exists():
        raise UserError(f"{place}: no shards here; write them: {shards_command(config)}")
    return read_index(place)


def whole_index(config: DataConfig) -> Index | None:
    """The same where every shard is there, too; None otherwise.

    A URL is the same for every host: a shard that is not there is named when it is read.
    """
    try:
        index = find_index(config)
    except UserError:
        return None
    place = shard_place(config)
    if is_remote(place):
        return index
    present = FolderStore(Path(place), index.key).present(index)
    return index if all(shard.file in present for shard in index.shards) else None


def shard_source(config: DataConfig, index: Index) -> Path | ShardCache:
    """Where the stream reads these shards from. Raises UserError where the cache cannot hold what is read together."""
    place, shards = shard_place(config), config.shards
    if not is_remote(place):
        return Path(place)
    limit = int(shards.cache_gigabytes * 1e9)
    largest = max((shard.bytes for shard in index.shards), default=0)
    least = (SHARDS_TOGETHER + FETCHERS) * largest
    if limit < least:
        raise UserError(
            f"shards.cache_gigabytes is {shards.cache_gigabytes:g}, but {SHARDS_TOGETHER} shards of {place} are read "
            f"together and {FETCHERS} fetched ahead: expected {least / 1e9:.3g} at least"
        )
    return ShardCache(place, Path(shards.cache), limit)
