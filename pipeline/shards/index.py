"""index.json: the shards in a folder, and the key of everything that determines their bytes.

An index from a URL is untrusted input. Its types, names, hashes and sums are validated before any shard is opened. An
index of very many records is split (record_tables.py): the records of a shard are validated when they are first used.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.config.schema import DataConfig
from pipeline.errors import UserError
from pipeline.io.remote import read_bytes
from pipeline.paths import looked_in
from pipeline.shards.index_errors import EXPECTED, check_equal, describe_first, name_field, show_value
from pipeline.shards.record_tables import (
    MOST_RECORDS,
    Positive,
    RecordEntry,
    RecordTable,
    Sha256,
    TableSlice,
    pack_records,
    table_name,
)  # fmt: skip
from pipeline.tokens.kmers import id_dtype

FORMAT = 2
"""Version of the format. It increases when the same settings give other bytes."""
SPLIT_FORMAT = 3
"""Version of an index whose records are in tables. The shards are those of FORMAT."""
INDEX = "index.json"
SHARD_FILE = r"(pretrain/(train|valid)|finetune/(train|valid|test))-[0-9]{6,}\.tar"
"""Name of a shard, relative to its folder or URL."""
TAR_END_BYTES = 2 * tarfile.BLOCKSIZE
"""Size of the empty blocks that end a tar."""

ShardFile = Annotated[str, Field(strict=True, pattern=f"^{SHARD_FILE}$")]
Bases = Annotated[str, Field(strict=True, pattern="^[ACGTN]*$")]
Number = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(frozen=True)
class ShardEntry:
    """One shard. file: relative to the index; rows: promoters; bytes, sha256: of the whole file."""

    file: ShardFile
    rows: Positive
    bytes: Positive
    sha256: Sha256
    records: Annotated[Sequence[RecordEntry], Field(min_length=1)]


@dataclass(frozen=True)
class Index:
    """Index of the shards of one dataset and k.

    splits: the shards of each split, such as pretrain/train, in order. It lists only splits that were requested and
    have rows. key: hash of everything that determines the bytes of the shards.
    """

    key: Sha256
    dataset_key: Annotated[str, Field(strict=True)]
    k: Annotated[int, Field(strict=True, ge=1, le=8)]
    dtype: Annotated[str, Field(strict=True)]
    """Type of the k-mer ids."""
    left_flank: Bases
    right_flank: Bases
    record_promoters: Positive
    shard_megabytes: Number
    compression: Literal["none", "zstd"]
    label_mean: Finite | list[Finite]
    """Mean of the fine-tuning training labels, to six decimals; with several labels, one per label."""
    label_sd: Number | list[Number]
    """Population standard deviation of the same labels."""
    splits: Annotated[dict[str, Annotated[list[ShardEntry], Field(min_length=1)]], Field(min_length=1)]
    format: Annotated[int, Field(strict=True)] = FORMAT
    labels: list[Annotated[str, Field(strict=True, min_length=1)]] = field(default_factory=list)
    """Names of several labels, in the order of the columns of the records; empty for one label."""

    @property
    def label_count(self) -> int | None:
        """Number of columns of the labels in a record; None for one label, which has no column axis."""
        return len(self.labels) or None

    def rows(self, split: str) -> int:
        """Count the promoters of a split, such as finetune/train."""
        return sum(shard.rows for shard in self.splits[split])

    @property
    def shards(self) -> list[ShardEntry]:
        """List the shards of all splits."""
        return list(chain.from_iterable(self.splits.values()))


_SHARD_ENTRY, _INDEX = TypeAdapter(ShardEntry), TypeAdapter(Index)
_TABLE_SLICE = TypeAdapter(TableSlice)
_REWRITE = "fix: promoter-bert shards"


def shard_key(dataset_key: str, config: DataConfig, labels: Sequence[str] = ()) -> str:
    """Hash everything that determines the bytes of the shards of a dataset and configuration.

    labels: names of several labels; empty for one label.
    """
    assay, shards = config.assay, config.shards
    parts = [dataset_key, shards.k, assay.left_flank, assay.right_flank, shards.record_promoters]
    return _hash_settings([*parts, shards.shard_megabytes, shards.compression], labels)


def _hash_settings(parts: list[Any], labels: Sequence[str]) -> str:
    parts = [*parts, list(labels)] if labels else parts
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()


def shard_name(shard: ShardEntry) -> str:
    """Return the file name of a shard, relative to its folder or URL. Raises UserError for a name of another form."""
    if not re.fullmatch(SHARD_FILE, shard.file):
        raise UserError(f"{show_value(shard.file)}: expected {EXPECTED['file']}; {_REWRITE}")
    return shard.file


def serialize_index(index: Index) -> str:
    """Serialize an index to one file, with a hash of its content."""
    splits = {
        split: [replace(shard, records=list(shard.records)) for shard in shards]
        for split, shards in index.splits.items()
    }
    values = asdict(replace(index, splits=splits))
    if not index.labels:  # the file of one label stays as earlier versions wrote it
        del values["labels"]
    return json.dumps({**values, "sha256": _hash_content(values)}, indent=1) + "\n"


def serialize_files(index: Index) -> dict[str, bytes]:
    """Serialize an index to files, by name; index.json comes last.

    With more than MOST_RECORDS records, their entries are in a table per split.
    """
    if sum(len(shard.records) for shard in index.shards) <= MOST_RECORDS:
        return {INDEX: serialize_index(index).encode()}
    files: dict[str, bytes] = {}
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, shards in index.splits.items():
        files[table_name(split)], slices = pack_records([shard.records for shard in shards])
        splits[split] = [
            {**{name: getattr(shard, name) for name in ("file", "rows", "bytes", "sha256")}, "table": asdict(part)}
            for shard, part in zip(shards, slices, strict=True)
        ]
    values = json.loads(serialize_index(replace(index, splits={})))
    del values["sha256"]
    values |= {"splits": splits, "format": SPLIT_FORMAT}
    return {**files, INDEX: json.dumps({**values, "sha256": _hash_content(values)}, indent=1).encode() + b"\n"}


def _hash_content(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_index(folder: Path | str, command: str = "promoter-bert shards") -> Index:
    """Read and validate the index of a folder or URL of shards.

    command: writes the shards; shown if there are none. Raises UserError if the index is missing, invalid or of
    another format.
    """
    path = f"{folder}/{INDEX}"
    try:
        return parse_index(read_bytes(folder, INDEX), path)
    except FileNotFoundError:
        raise UserError(f"{path}: no shards here{looked_in(path)}; fix: {command}") from None


def parse_index(data: bytes, path: str, read: Callable[..., bytes] = read_bytes) -> Index:
    """Parse and validate the bytes of an index.

    path: of index.json; read: reads a byte range of a table, see read_bytes.

    Raises UserError that names the first invalid field: a type, a file name, a hash, or a sum that does not match.
    """
    try:
        values = json.loads(data)
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a JSON object, got {show_value(values)}; {_REWRITE}")
        format_number, sha256 = values.get("format"), values.pop("sha256", None)
        if format_number not in (FORMAT, SPLIT_FORMAT):
            raise UserError(f"{path}: expected format {FORMAT}, got {show_value(format_number)}; {_REWRITE}")
        digest = _hash_content(values)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON, or truncated: {error}; {_REWRITE}") from None
    try:
        tables = _fold_tables(values) if format_number == SPLIT_FORMAT else {}
        index = _INDEX.validate_python(values)
        _check_index(index)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_first(error)}; {_REWRITE}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; {_REWRITE}") from None
    if sha256 != digest:
        got = f"expected sha256 {digest[:16]}..., got {show_value(sha256)}"
        raise UserError(f"{path}: sha256: the file changed since it was written: {got}; {_REWRITE}")
    return _attach_tables(index, tables, path.removesuffix(f"/{INDEX}"), read) if tables else index


def _fold_tables(values: dict[str, Any]) -> dict[str, list[TableSlice]]:
    """Replace the table slice of each shard of a split index by one record, so that all other rules can be checked.

    Returns the slices. Raises ValueError for an invalid one; other errors are left to the check of the whole index.
    """
    tables: dict[str, list[TableSlice]] = {}
    splits = values.get("splits")
    for split, shards in splits.items() if isinstance(splits, dict) else ():
        tables[split] = []
        for number, shard in enumerate(shards if isinstance(shards, list) else ()):
            if isinstance(shard, dict):
                try:
                    tables[split].append(_TABLE_SLICE.validate_python(shard.pop("table", None)))
                except ValidationError as error:
                    raise ValueError(
                        f"{name_field(['splits', split, number])}.table: {describe_first(error)}"
                    ) from None
                size = shard.get("bytes")
                whole = size - TAR_END_BYTES if isinstance(size, int) else None
                shard["records"] = [{"offset": 0, "bytes": whole, "rows": shard.get("rows"), "crc32": 0}]
    values["format"] = FORMAT
    return tables


def _attach_tables(index: Index, tables: dict[str, list[TableSlice]], folder: str, read: Callable[..., bytes]) -> Index:
    """Attach the tables to the shards of a split index."""

    def attach(split: str, shard: ShardEntry, part: TableSlice) -> ShardEntry:
        name = table_name(split)
        check = partial(_check_records, shard, f"{folder}/{name}: {shard.file}")
        return replace(shard, records=RecordTable(f"{folder}/{name}", part, partial(read, folder, name), check))

    pairs = {split: zip(shards, tables[split], strict=True) for split, shards in index.splits.items()}
    return replace(index, splits={split: [attach(split, *pair) for pair in those] for split, those in pairs.items()})


def _check_records(shard: ShardEntry, place: str, records: Any) -> None:
    """Check the records of a shard in a table. Raises UserError."""
    try:
        parse_shard_entry({**asdict(shard), "records": records}, shard.file)
    except ValidationError as error:
        raise UserError(f"{place}: {describe_first(error)}; {_REWRITE}") from None
    except ValueError as error:
        raise UserError(f"{place}: {error}; {_REWRITE}") from None


def parse_shard_entry(values: Any, file: str) -> ShardEntry:
    """Parse and validate the entry of shard `file` from JSON values. Raises ValueError if it is invalid."""
    entry = _SHARD_ENTRY.validate_python(values)
    _check_shard(entry, file, "shard")
    return entry


def _check_index(index: Index) -> None:
    """Check the rules that types cannot express. Raises ValueError that names the field."""
    check_equal("dtype", id_dtype(index.k).name, index.dtype, f"for k = {index.k}")
    for split, shards in index.splits.items():
        for number, shard in enumerate(shards):
            _check_shard(shard, f"{split}-{number:06d}.tar", f"{name_field(['splits', split])}[{number}]")
    parts = [index.dataset_key, index.k, index.left_flank, index.right_flank, index.record_promoters]
    _check_labels(index)
    key = _hash_settings([*parts, index.shard_megabytes, index.compression], index.labels)
    check_equal("key", key, index.key, "the hash of the settings in the index")


def _check_labels(index: Index) -> None:
    """Check that several labels have names, means and deviations, and one label has no name. Raises ValueError."""
    count = len(index.labels)
    if count == 1 or len(set(index.labels)) != count:
        raise ValueError(f"labels: expected {EXPECTED['labels']}, got {show_value(index.labels)}")
    for name, values in (("label_mean", index.label_mean), ("label_sd", index.label_sd)):
        if not isinstance(values, list):
            check_equal(name, 0, count, "labels of an index with one number")
        else:
            check_equal(name, f"{count} numbers", f"{len(values)} numbers", "one per label")


def _check_shard(shard: ShardEntry, file: str, where: str) -> None:
    """Check the name and sums of an entry. Raises ValueError that names the field."""
    check_equal(f"{where}.file", file, shard.file, "in the order of the shards")
    end = 0
    for number, record in enumerate(shard.records):
        check_equal(f"{where}.records[{number}].offset", end, record.offset, "the end of the previous record")
        end += record.bytes
    check_equal(f"{where}.rows", sum(record.rows for record in shard.records), shard.rows, "the sum of its records")
    check_equal(f"{where}.bytes", end + TAR_END_BYTES, shard.bytes, "the end of its records and of the tar")
