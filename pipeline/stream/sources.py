"""Where shard files are read from: a folder here, or a URL by way of a cache (shard_cache.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.errors import UserError
from pipeline.shards.index import ShardEntry
from pipeline.shards.record_reader import missing


class ShardSource(Protocol):
    """What the stream asks of a place with shards. Called by several threads at once."""

    def __str__(self) -> str:
        """The folder or URL, as an error is to name it."""

    def open(self, shard: ShardEntry) -> BinaryIO:
        """The file, whole. Raises UserError where it cannot be had."""

    def expect(self, shards: Sequence[ShardEntry]) -> None:
        """These will be opened soon, in this order."""

    def replace(self, shard: ShardEntry) -> bool:
        """The bytes were found wrong: get others. False where there are no others to be had."""


class LocalShards:
    """Shards in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def open(self, shard: ShardEntry) -> BinaryIO:
        """The file. Raises UserError where it is missing."""
        try:
            return (self.folder / shard.file).open("rb", buffering=0)
        except FileNotFoundError:
            raise missing(self.folder, shard) from None
        except OSError as error:
            raise UserError(f"{self.folder / shard.file}: cannot be read: {error.strerror}") from None

    def expect(self, shards: Sequence[ShardEntry]) -> None:
        """They are here."""

    def replace(self, shard: ShardEntry) -> bool:
        """There is no other copy."""
        del shard
        return False
