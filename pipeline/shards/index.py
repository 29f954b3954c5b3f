"""index.json: what lies in a folder of shards, and the key that says what it was made from."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.schema import Assay, Shards
from pipeline.errors import UserError
from pipeline.io.remote import read_bytes

FORMAT = 2
"""Raised when the same settings' shards would hold other bytes."""
INDEX = "index.json"


@dataclass(frozen=True)
class RecordEntry:
    """One record: where its bytes lie in the shard file, how many promoters it holds, and the bytes' CRC-32."""

    offset: int
    bytes: int
    rows: int
    crc32: int


@dataclass(frozen=True)
class ShardEntry:
    """One shard file, named relative to the index. sha256: of the whole file."""

    file: str
    rows: int
    bytes: int
    sha256: str
    records: list[RecordEntry]


@dataclass(frozen=True)
class Index:
    """The shards of a dataset and k. splits: "pretrain/train" and so on to their shards, in order.

    Only the splits that were asked for, and have rows, are in it.
    """

    key: str
    dataset_key: str
    k: int
    dtype: str
    left_flank: str
    right_flank: str
    record_promoters: int
    shard_megabytes: float
    compression: str
    label_mean: float
    """Mean of the fine-tuning training labels, to six decimals."""
    label_sd: float
    """Their standard deviation (population)."""
    splits: dict[str, list[ShardEntry]] = field(default_factory=dict)
    format: int = FORMAT

    def rows(self, split: str) -> int:
        """Promoters in a split such as "finetune/train"."""
        return sum(shard.rows for shard in self.splits[split])

    @property
    def shards(self) -> Iterator[ShardEntry]:
        """The shards of all splits."""
        return (shard for shards in self.splits.values() for shard in shards)


def shard_key(dataset_key: str, assay: Assay, shards: Shards) -> str:
    """What determines every byte of the shards."""
    parts = [FORMAT, dataset_key, shards.k, assay.left_flank, assay.right_flank, shards.record_promoters]
    parts += [shards.shard_megabytes, shards.compression]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def index_text(index: Index) -> str:
    """The file's text, with a hash of what it says."""
    values = asdict(index)
    return json.dumps({**values, "sha256": _digest(values)}, indent=1) + "\n"


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def shard_entry(values: dict[str, Any]) -> ShardEntry:
    """An entry from its JSON. Raises KeyError or TypeError where it is none."""
    return ShardEntry(**{**values, "records": [RecordEntry(**record) for record in values["records"]]})


def read_index(folder: Path | str) -> Index:
    """The index of a folder of shards, or of a URL. Raises UserError where there is none, or one of another format."""
    path = f"{folder}/{INDEX}"
    try:
        values: dict[str, Any] = json.loads(read_bytes(folder, INDEX))
    except FileNotFoundError:
        raise UserError(f"{path}: no shards here; write them with: promoter-bert shards") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON, or cut off: {error}; write it again: promoter-bert shards") from None
    try:
        if values["format"] != FORMAT:
            raise UserError(f"{path}: format {values['format']}, expected {FORMAT}; run: promoter-bert shards")
        if values.pop("sha256") != _digest(values):
            raise UserError(f"{path}: changed since it was written; write it again: promoter-bert shards")
        splits = {split: [shard_entry(entry) for entry in shards] for split, shards in values.pop("splits").items()}
        return Index(**values, splits=splits)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not an index of shards: {error}; write it again: promoter-bert shards") from None
