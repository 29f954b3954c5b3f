"""Sources of shard files: a local folder, or a URL read through a cache (cache.py, record_cache.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline.config.schema import DataConfig
from pipeline.errors import UserError
from pipeline.io.remote import is_remote
from pipeline.shards.index import Index, ShardEntry, shard_name
from pipeline.shards.location import shard_location, shards_command
from pipeline.shards.records import REWRITE_COMMAND, missing_shard_error
from pipeline.stream.cache import FETCHERS, ShardCache
from pipeline.stream.record_cache import RecordCache
from pipeline.stream.shuffle import SHARDS_TOGETHER


class LocalShards:
    """Shards in a local folder. Thread-safe. command: writes the shards, for the fix in errors."""

    def __init__(self, folder: Path, command: str = REWRITE_COMMAND) -> None:
        self.folder, self.command = folder, command

    def __str__(self) -> str:
        return str(self.folder)

    def open(self, shard: ShardEntry, records: Sequence[int] = ()) -> BinaryIO:
        """Open the file of a shard. Raises UserError if it is missing or cannot be read.

        records: that will be read; the file holds all.
        """
        del records
        path = self.folder / shard_name(shard)
        try:
            return path.open("rb", buffering=0)
        except FileNotFoundError:
            raise missing_shard_error(self.folder, shard, self.command) from None
        except OSError as error:
            raise UserError(f"{path}: cannot read: {error.strerror}") from None

    def prefetch_records(self, records: Sequence[tuple[ShardEntry, int]]) -> None:
        """Prefetch records that will be read soon, in this order. Local files need no preparation."""

    def discard(self, shard: ShardEntry) -> bool:
        """Discard a corrupt copy of a shard. Returns False: a folder has no other copy."""
        del shard
        return False


ShardSource = LocalShards | ShardCache | RecordCache
"""Source of the shards of a stream. Its str() is the folder or URL, for errors."""


def choose_source(config: DataConfig, index: Index, hosts: int = 1) -> ShardSource:
    """Choose the source of the shards of a configuration. Raises UserError if the cache is too small.

    hosts: number of hosts whose ranks read the shards. A single one needs all records, so it fetches whole shards if
    its cache can hold those of a split: lanes read many shards at a time.
    """
    place, shards = shard_location(config), config.shards
    if not is_remote(place):
        return LocalShards(Path(place), shards_command(config))
    limit = int(shards.cache_gigabytes * 1e9)
    largest = max((shard.bytes for shard in index.shards), default=0)
    needed = (SHARDS_TOGETHER + FETCHERS) * largest
    if limit < needed:
        raise UserError(
            f"shards.cache_gigabytes: too small for {SHARDS_TOGETHER} shards of {place} that are read together and "
            f"{FETCHERS} that are prefetched; expected at least {needed / 1e9:.3g}, got {shards.cache_gigabytes:g}"
        )
    largest_split = max((sum(shard.bytes for shard in split) for split in index.splits.values()), default=0)
    fetches_whole = hosts == 1 and limit >= largest_split
    return (ShardCache if fetches_whole else RecordCache)(place, Path(shards.cache), limit)
