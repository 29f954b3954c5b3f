"""The shards that a configuration names, in a folder or at a URL, with their index."""

from pathlib import Path

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.freshness import shard_place, shards_command
from pipeline.index import INDEX, Index, read_index
from pipeline.order import SHARDS_TOGETHER
from pipeline.remote import is_remote
from pipeline.shard_cache import FETCHERS, ShardCache, read_remote_index


def open_shards(config: Config) -> tuple[Path | ShardCache, Index]:
    """Where the stream reads the shards of `shards.k` from. Raises UserError where there are none."""
    place, shards = shard_place(config), config.shards
    if not is_remote(place):
        if not Path(place, INDEX).exists():
            raise UserError(f"{place}: no shards here; write them: {shards_command(config)}")
        return Path(place), read_index(place)
    index = read_remote_index(place)
    limit = int(shards.cache_gigabytes * 1e9)
    largest = max((shard.bytes for shard in index.shards), default=0)
    least = (SHARDS_TOGETHER + FETCHERS) * largest
    if limit < least:
        raise UserError(
            f"shards.cache_gigabytes is {shards.cache_gigabytes:g}, but {SHARDS_TOGETHER} shards of {place} are read "
            f"together and {FETCHERS} fetched ahead: expected {least / 1e9:.3g} at least"
        )
    return ShardCache(place, Path(shards.cache), limit), index
