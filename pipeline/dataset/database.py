"""Connect to dataset.duckdb as reader, as writer, or as the build that creates it."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import duckdb

from pipeline.config.schema import SEQUENCE_NAME
from pipeline.errors import UserError
from pipeline.paths import SQL, looked_in

LOCK_TIMEOUT_S = 20.0
"""Seconds that a writer waits for readers to close the file."""
STORAGE_VERSION = "v1.2.0"
"""The oldest DuckDB that can open the file."""
KNOWN_HASH = ("ACGT", 7, 17626680035712261508)
"""A text, a seed and their hash. The hash function decides the splits and may change with the DuckDB version."""

MARKS = frozenset(
    (
        "cells",
        "columns",
        "copied",
        "first",
        "group",
        "group_code",
        "group_name",
        "groups",
        "key",
        "labels",
        "means",
        "names",
        "rest",
        "rule",
        "ties",
    )
)
"""Comments of statements that stand for further SQL (sql/README.md)."""
_MARK = re.compile(r"/\*\s*(\w+)\s*\*/")

PROBLEMS = {
    "gzip": "a compressed input file is corrupt or truncated; fix: copy it again",
    "zstd": "a compressed input file is corrupt or truncated; fix: copy it again",
    "no space left": "the disk is full",
    "not utf-8": "an input file is not text in UTF-8",
    "invalid unicode": "an input file is not text in UTF-8",
}
"""Explanation of a DuckDB error, by a phrase in it; the first match counts."""


@dataclass(frozen=True)
class DatasetInfo:
    """The one row of relation `dataset`."""

    key: str
    input_rows: int
    promoters: int
    cut: float | None
    """None for a dataset without labels."""
    pretrain_rows: int
    pretrain_valid_rows: int
    finetune_valid_rows: int
    finetune_test_rows: int
    finetune_train_rows: int
    seed: int
    split: str
    max_mismatches: int
    random_split_leaks: int | None
    """For split = grouped: held-out rows of a random split that would have a near-duplicate in training."""
    top_fraction: float
    left_adapter: str
    right_adapter: str
    upstream: str
    downstream: str
    settings: str | None
    """JSON of the settings of the build; None if it was built by hand."""
    labels: list[str] = field(default_factory=lambda: ["expression"])
    """Names of the label columns in order; one label is in column expression. Empty without labels."""

    @property
    def sequence_name(self) -> str:
        """Word of the dataset's assay for one sequence (assay.name)."""
        return read_sequence_name(self.settings)

    @property
    def unit(self) -> str:
        """Unit of expression (assay.unit); empty for arbitrary units, as in older datasets."""
        return str(_assay_of(self.settings).get("unit", ""))

    @property
    def several_labels(self) -> list[str]:
        """Names of the label columns if there are several, which are columns of `promoters`; else empty."""
        return self.labels if len(self.labels) > 1 else []

    @property
    def split_rows(self) -> dict[str, int]:
        """Rows of each split, such as finetune/train."""
        return {
            "pretrain/train": self.pretrain_rows - self.pretrain_valid_rows,
            "pretrain/valid": self.pretrain_valid_rows,
            "finetune/train": self.finetune_train_rows,
            "finetune/valid": self.finetune_valid_rows,
            "finetune/test": self.finetune_test_rows,
        }


def read_sequence_name(settings: str | None) -> str:
    """Read assay.name from the settings that relation `dataset` records as JSON; older datasets do not record it."""
    return str(_assay_of(settings).get("name", SEQUENCE_NAME))


def _assay_of(settings: str | None) -> dict[str, Any]:
    return {} if settings is None else dict(json.loads(settings)["assay"])


def statement(name: str, marks: Mapping[str, str] | None = None) -> str:
    """Read the statements of a file below sql/. marks: SQL to put in place of comments, such as /* cells */.

    Raises ValueError for a mark that is none of MARKS: it would be omitted without a word.
    """
    text, marks = (SQL / name).read_text(encoding="utf-8"), marks or {}
    if unknown := {*marks, *_MARK.findall(text)} - MARKS:
        raise ValueError(f"{name}: unknown marks {', '.join(sorted(unknown))}; expected those of sql/README.md")
    return _MARK.sub(lambda mark: marks.get(mark[1], ""), text)


def is_duckdb(path: Path | str) -> bool:
    """Check the magic bytes of a DuckDB database. Raises OSError if the file cannot be read."""
    with Path(path).open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


@contextmanager
def open_dataset(
    path: Path | str, read_only: bool = True, other_files: bool = False, build_command: str = ""
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection to a dataset. Either one writer or several readers can have it open.

    build_command: builds the dataset; shown if there is none. other_files: let queries read other files; a view in a
    dataset from elsewhere must not. A writer waits up to LOCK_TIMEOUT_S for readers. Raises UserError if the file is
    missing, is not a DuckDB file, or stays locked by another process, and for an error of DuckDB in the block.
    """
    try:
        is_database = is_duckdb(path)
    except OSError as error:
        place = looked_in(path) if isinstance(error, FileNotFoundError) else ""
        command = build_command or f"promoter-bert build FILE --dataset {path}"
        raise UserError(f"{path}: no such dataset{place or f' ({error.strerror})'}; fix: {command}") from None
    if not is_database:  # DuckDB also opens CSV and other files
        raise UserError(f"{path}: not a DuckDB file; fix: promoter-bert build FILE --dataset {path}.duckdb")
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection = duckdb.connect(str(path), read_only=read_only, config={"enable_external_access": other_files})
            break
        except duckdb.Error as error:
            locked = "lock" in str(error).lower()
            if not locked or time.monotonic() > deadline:
                problem = "in use by another process" if locked else "not a DuckDB file, or corrupt"
                raise UserError(f"{path}: {problem}: {_first_line(error)}") from None
            time.sleep(0.1)
    with connection:
        try:
            yield connection
        except duckdb.Error as error:
            raise UserError(f"{path}: {explain(error)}") from None


@contextmanager
def open_dataset_of_key(paths: Iterable[Path], key: str) -> Iterator[duckdb.DuckDBPyConnection | None]:
    """Open the first of these datasets that has the key, as a reader; yield None if none of them has it.

    Paths without a file are skipped. Raises UserError as open_dataset does.
    """
    for path in filter(Path.exists, paths):
        with open_dataset(path) as connection:
            if dataset_info(connection).key == key:
                yield connection
                return
    yield None


@contextmanager
def create_dataset(
    path: Path, threads: int | None = None, memory_limit: str | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Create the database of a build and connect to it. Temporary files of DuckDB go to a folder beside it.

    Raises UserError for an invalid memory limit, and for a DuckDB version with another hash function.
    """
    with duckdb.connect() as connection:
        sequence, seed, expected = KNOWN_HASH
        if rows_of(connection, "select hash(hash(?, ?::ubigint))", [sequence, seed]) != [(expected,)]:
            raise UserError(
                f"DuckDB {duckdb.__version__}: hash function differs from versions 1.5 to 2.0, so splits would differ "
                "from those of other machines; fix: install the DuckDB of constraints.txt"
            )
        connection.execute("set temp_directory = ?", [str(path.parent / "spill")])
        if threads is not None:
            connection.execute("set threads = ?", [threads])
        if memory_limit is not None:
            set_memory_limit(connection, memory_limit)
        # DuckDB selects FSST for sequences after a trial of all methods. Setting it saves 20 % of the writing time.
        connection.execute("set force_compression = 'fsst'")
        connection.execute(f"attach ? as dataset (storage_version '{STORAGE_VERSION}')", [str(path)])
        connection.execute("use dataset")
        yield connection


def dataset_info(connection: duckdb.DuckDBPyConnection) -> DatasetInfo:
    """Read the sizes, pretraining threshold and key of an open dataset. Raises UserError if there is none."""
    present = {
        name for (name,) in rows_of(connection, "select column_name from duckdb_columns() where table_name = 'dataset'")
    }
    # Datasets of earlier versions lack the last columns.
    names = [each.name for each in fields(DatasetInfo) if each.name in present or each.default_factory is MISSING]
    try:
        (row,) = rows_of(connection, f"select {', '.join(names)} from dataset")
    except (duckdb.Error, ValueError):
        if rows_of(connection, "from duckdb_columns() where (table_name, column_name) = ('dataset', 'key')"):
            raise UserError("the dataset was built by another version of promoter-bert; fix: build it again") from None
        raise UserError(
            "the DuckDB file holds no dataset; fix: promoter-bert build FILE, with the --config and the overrides of "
            "this command"
        ) from None
    return DatasetInfo(**dict(zip(names, row, strict=True)))


def rows_of(connection: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Fetch all rows of a small result. After fetchone, DuckDB 2.0 would keep the connection busy."""
    rows: list[tuple[Any, ...]] = connection.execute(query, list(parameters)).fetchall()
    return rows


def row_count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    """Count the rows of a relation. relation: SQL after `from`, such as `pretrain where id < 5`."""
    ((count,),) = rows_of(connection, f"select count(*) from {relation}")
    return int(count)


def set_memory_limit(connection: duckdb.DuckDBPyConnection, memory_limit: str) -> None:
    """Set the memory limit of a connection, such as 2GB. Raises UserError for an invalid one."""
    try:
        connection.execute("set memory_limit = ?", [memory_limit])
    except duckdb.Error:
        raise UserError(f"--memory {memory_limit}: expected a size with its unit, such as 2GB") from None


def memory_limit_bytes(connection: duckdb.DuckDBPyConnection) -> int:
    """Read the memory limit of a connection, which DuckDB rounds to a tenth of its unit."""
    ((text,),) = rows_of(connection, "select current_setting('memory_limit')")
    number, unit = text.split()
    return int(float(number) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit))


def explain(error: Exception) -> UserError:
    """Convert a DuckDB error into a UserError: a known explanation, or the first lines of the error."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return UserError(f"not enough memory; fix: raise --memory, or lower --threads ({_first_line(error)})")
    text = str(error)
    for phrase, problem in PROBLEMS.items():
        if phrase in text.lower():
            return UserError(f"{problem} ({_first_line(error)})")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return UserError("; ".join(lines[:3]))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def training_insert_lengths(path: Path | str) -> tuple[int, int]:
    """Read the length of the shortest and longest insert of the fine-tuning training split of a dataset, in bases."""
    with open_dataset(path) as connection:
        info = dataset_info(connection)
        lengths = "select min(strlen(sequence)), max(strlen(sequence)) from finetune where split = 'train'"
        ((shortest, longest),) = rows_of(connection, lengths)
    adapters = len(info.left_adapter) + len(info.right_adapter)
    return shortest - adapters, longest - adapters
