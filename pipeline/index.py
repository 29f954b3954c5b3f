"""index.json: what lies in a folder of shards, and the key that says what it was made from."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.atomic import write_text
from pipeline.config import Assay
from pipeline.errors import UserError

FORMAT = 1
"""Raised when the same key's shards would hold other bytes."""


@dataclass(frozen=True)
class RecordEntry:
    """One record: where its bytes lie in the shard file, and how many promoters it holds."""

    offset: int
    bytes: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class ShardEntry:
    """One shard file, named relative to the index."""

    file: str
    rows: int
    bytes: int
    sha256: str
    records: list[RecordEntry]


@dataclass(frozen=True)
class Index:
    """All shards of a dataset and k. splits: "pretrain/train" and so on to the shards in order."""

    key: str
    dataset_key: str
    k: int
    dtype: str
    left_flank: str
    right_flank: str
    record_promoters: int
    shard_megabytes: float
    label_mean: float
    """Mean of the fine-tuning training labels, to six decimals."""
    label_sd: float
    """Their standard deviation (population)."""
    splits: dict[str, list[ShardEntry]] = field(default_factory=dict)
    format: int = FORMAT

    def rows(self, split: str) -> int:
        """Promoters in a split such as "finetune/train"."""
        return sum(shard.rows for shard in self.splits[split])


def shard_key(dataset_key: str, k: int, assay: Assay, record_promoters: int, shard_megabytes: float) -> str:
    """What determines every byte of the shards."""
    parts = [FORMAT, dataset_key, k, assay.left_flank, assay.right_flank, record_promoters, shard_megabytes]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_index(path: Path, index: Index) -> None:
    """Write it, whole or not at all."""
    write_text(path, json.dumps(asdict(index), indent=1) + "\n")


def read_index(folder: Path | str) -> Index:
    """The index of a folder of shards. Raises UserError where there is none, or one of another format."""
    path = Path(folder) / "index.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no shards here; write them with: promoter-bert shards") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON, or cut off: {error}; write it again: promoter-bert shards") from None
    if values.get("format") != FORMAT:
        raise UserError(f"{path}: format {values.get('format')}, expected {FORMAT}; run: promoter-bert shards")
    splits = {
        split: [ShardEntry(**{**s, "records": [RecordEntry(**r) for r in s["records"]]}) for s in shards]
        for split, shards in values.pop("splits").items()
    }
    return Index(**values, splits=splits)
