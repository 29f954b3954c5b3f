"""The Parquet copy of a dataset: one row per promoter in a file per split of finetune, and the rejects beside them."""

from contextlib import suppress

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.database import DatasetInfo, statement
from pipeline.dataset.workspace import DatasetFiles

UNUSED = "unused"
"""The file of promoters in no split of finetune, which finetune_train leaves out."""
OPTIONS = "format parquet, compression snappy, dictionary_size_limit 1"
"""No dictionaries: nearly every sequence is unique, and searching for repeats takes time."""


def write_parquet(
    connection: duckdb.DuckDBPyConnection,
    files: DatasetFiles,
    info: DatasetInfo,
    source: str | None,
    marks: dict[str, str],
) -> None:
    """Write a file per split of finetune in the order of positions, and the rejects. source: hash, kept in each file.

    A split without rows has no file: Hugging Face's reader refuses empty ones. Columns: id, sequence, expression,
    split, position, pretrain_split and pretrain_position, then several labels and kept columns (marks). The two columns
    of pretraining are null for promoters that pretraining does not use.
    """
    options = f"{OPTIONS}, kv_metadata {{source: '{source or ''}'}}"
    files.parquet.mkdir()
    connection.execute(statement("12_parquet_rows.sql", marks))
    for name, (first, after) in _id_ranges(info).items():
        connection.execute(f"set variable first_id = {first}; set variable next_id = {after}")
        connection.execute("set variable parquet_split = ?", [None if name == UNUSED else name])
        connection.execute(f"copy (from parquet_rows) to ? ({options})", [str(files.parquet / f"{name}.parquet")])
    connection.execute(f"copy rejects to ? ({options})", [str(files.rejects)])


def has_parquet(files: DatasetFiles, info: DatasetInfo, source: str) -> bool:
    """Return whether all Parquet files of a dataset exist and were written by the build of this source."""
    paths = [*(files.parquet / f"{name}.parquet" for name in _id_ranges(info)), files.rejects]
    with suppress(OSError, pa.ArrowInvalid):
        return all((pq.read_metadata(path).metadata or {}).get(b"source") == source.encode() for path in paths)
    return False


def _id_ranges(info: DatasetInfo) -> dict[str, tuple[int, int]]:
    """List the first id of each file that has rows, and the id after its last one."""
    test, held_out = info.finetune_test_rows, info.finetune_test_rows + info.finetune_valid_rows
    used = held_out + info.finetune_train_rows
    ranges = {"test": (0, test), "valid": (test, held_out), "train": (held_out, used), UNUSED: (used, info.promoters)}
    return {name: (first, after) for name, (first, after) in ranges.items() if first < after}
