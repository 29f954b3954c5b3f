"""index.json: the shards in a folder, and the key of everything that decides their bytes.

An index from a URL is a stranger's data: types, file names and hashes are validated before anything is opened.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.config.schema import DataConfig
from pipeline.errors import UserError
from pipeline.io.remote import read_bytes

FORMAT = 2
"""Raised when the same settings' shards would hold other bytes."""
INDEX = "index.json"
SHARD_FILE = r"(pretrain|finetune)/(train|valid|test)-[0-9]{6,}\.tar"
"""Name of a shard below its folder or URL."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ShardFile = Annotated[str, Field(pattern=f"^{SHARD_FILE}$")]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class RecordEntry:
    """One record: its byte range in the shard file, its promoters, and the CRC-32 of its bytes."""

    offset: Count
    bytes: Count
    rows: Count
    crc32: Count


@dataclass(frozen=True)
class ShardEntry:
    """One shard file, named relative to the index. sha256: of the whole file."""

    file: ShardFile
    rows: Count
    bytes: Count
    sha256: Sha256
    records: list[RecordEntry]


@dataclass(frozen=True)
class Index:
    """The shards of one dataset and k. splits: the shards of each split, such as "pretrain/train", in order.

    Holds only splits that were requested and have rows.
    """

    key: str
    dataset_key: str
    k: Annotated[int, Field(ge=1, le=8)]
    dtype: Annotated[str, Field(pattern="^uint(8|16|32)$")]
    left_flank: str
    right_flank: str
    record_promoters: int
    shard_megabytes: float
    compression: Literal["none", "zstd"]
    label_mean: float
    """Mean of the fine-tuning training labels, to six decimals."""
    label_sd: float
    """Their population standard deviation."""
    splits: dict[str, list[ShardEntry]] = field(default_factory=dict)
    format: int = FORMAT

    def rows(self, split: str) -> int:
        """Count the promoters in a split such as "finetune/train"."""
        return sum(shard.rows for shard in self.splits[split])

    @property
    def shards(self) -> list[ShardEntry]:
        """The shards of all splits."""
        return list(chain.from_iterable(self.splits.values()))


SHARD_ENTRY = TypeAdapter(ShardEntry)
"""Parser of an entry; raises ValueError if it is invalid."""
_INDEX = TypeAdapter(Index)


def shard_key(dataset_key: str, config: DataConfig) -> str:
    """Hash everything that determines the bytes of the shards of a dataset and configuration."""
    assay, shards = config.assay, config.shards
    parts = [FORMAT, dataset_key, shards.k, assay.left_flank, assay.right_flank, shards.record_promoters]
    parts += [shards.shard_megabytes, shards.compression]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def index_text(index: Index) -> str:
    """Serialize an index, with a hash of its content."""
    values = asdict(index)
    return json.dumps({**values, "sha256": _digest(values)}, indent=1) + "\n"


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_index(folder: Path | str, command: str = "promoter-bert shards") -> Index:
    """Read the index of a folder or URL of shards. command: writes the shards, for the error if there are none.

    Raises UserError if the index is missing, invalid or of another format.
    """
    path = f"{folder}/{INDEX}"
    try:
        return parse_index(read_bytes(folder, INDEX), path)
    except FileNotFoundError:
        raise UserError(f"{path}: no shards here; fix: {command}") from None


def parse_index(data: bytes, path: str) -> Index:
    """Parse and validate the bytes of an index. path: its name in errors. Raises UserError if they are invalid."""
    rewrite = "fix: promoter-bert shards"
    try:
        values: dict[str, Any] = json.loads(data)
        if values["format"] != FORMAT:
            raise UserError(f"{path}: expected format {FORMAT}, got {values['format']}; {rewrite}")
        if values.pop("sha256") != _digest(values):
            raise UserError(f"{path}: changed since it was written (its sha256 differs); {rewrite}")
        return _INDEX.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: not an index of shards: {place}: {first['msg']}; {rewrite}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON, or truncated: {error}; {rewrite}") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not an index of shards: {error}; {rewrite}") from None
