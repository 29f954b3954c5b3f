"""The files of a dataset on the disk: what a build may replace, its working files, and the final renames."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.database import is_duckdb, open_dataset, rows_of
from pipeline.errors import UserError
from pipeline.io.atomic import flush_to_disk, recover_folder, replace_folder
from pipeline.io.file_names import expect_utf8_name
from pipeline.io.locks import hold_lock
from pipeline.io.remote import is_remote
from pipeline.runtime.interrupts import deferred_interrupts

RESULTS = ("shards", "records", "runs", "metrics", "predictions")
"""The relations of sql/10_results.sql."""
RELATIONS = {
    "promoters",
    "rejects",
    "repairs",
    "near_duplicates",
    "split_leaks",
    "dataset",
    "finetune",
    "pretrain",
    "measurements",
    *RESULTS,
}
"""All relations of a dataset."""
PARQUET_NAMES = {"train.parquet", "valid.parquet", "test.parquet", "unused.parquet"}
PARQUET_COLUMNS = ["id", "sequence", "expression", "split", "position", "pretrain_split", "pretrain_position"]
REJECT_COLUMNS = ["file", "line", "reason", "text"]
EARLIER_NAMES = {"finetune", "pretrain", "rejects.parquet"}
"""The entries of a folder of Parquet that version 0.1.0 wrote."""
OTHER_NAME = "fix: another name, --dataset NAME.duckdb"


@dataclass(frozen=True)
class DatasetFiles:
    """The three outputs of a build: the DuckDB file, the folder of Parquet and the Parquet file of rejects."""

    database: Path
    parquet: Path
    rejects: Path


def dataset_files(name: str) -> DatasetFiles:
    """Name the outputs of a build. A symbolic link stands for the file or folder that it points to.

    Raises UserError for a name that does not end in .duckdb or is not UTF-8.
    """
    expect_utf8_name(name)
    if not name.endswith(".duckdb"):
        raise UserError(f"{name}: expected a name ending in .duckdb; {OTHER_NAME}")
    database = _follow_link(Path(name))
    return DatasetFiles(
        database,
        _follow_link(database.with_suffix(".parquet")),
        _follow_link(database.with_suffix(".rejects.parquet")),
    )


def check_inputs(files: DatasetFiles, names: list[str]) -> None:
    """Raise UserError if the dataset would replace an input file, and for a name that is not UTF-8.

    names: files, patterns or URLs.
    """
    for name in names:
        expect_utf8_name(name)
    inputs = {Path(name).resolve() for name in names if not is_remote(name)}
    outputs = [path.resolve() for path in (files.database, files.parquet, files.rejects)]
    if any(output == path or output in path.parents for path in inputs for output in outputs):
        raise UserError(f"{files.database} and {files.parquet}: the dataset would replace an input file; {OTHER_NAME}")


def check_replaceable(files: DatasetFiles) -> None:
    """Raise UserError if the build would replace anything that is not a dataset."""
    if files.database.exists():
        if not is_duckdb(files.database):
            raise UserError(f"{files.database}: exists but is not a DuckDB file; {OTHER_NAME}")
        with open_dataset(files.database) as connection:
            name = "if(table_schema = 'main', '', table_schema || '.') || table_name"
            relations = {name for (name,) in rows_of(connection, f"select {name} from information_schema.tables")}
        if "dataset" not in relations or relations - RELATIONS:
            others = ", ".join(sorted(relations - RELATIONS)) or "no dataset"
            raise UserError(f"{files.database}: exists and holds {others}, which would be lost; {OTHER_NAME}")
    if files.parquet.exists() and not _is_dataset_folder(files.parquet):
        raise UserError(f"{files.parquet}: exists but is not the Parquet of a dataset; {OTHER_NAME}")
    if files.rejects.exists() and not _has_columns(files.rejects, REJECT_COLUMNS):
        raise UserError(f"{files.rejects}: exists but does not hold the rejects of a dataset; {OTHER_NAME}")


@contextmanager
def working_files(files: DatasetFiles) -> Iterator[DatasetFiles]:
    """Lock a dataset and name working files beside its own, removed at the end. Those of a killed build go first.

    The folder of the working DuckDB file is empty and may hold other temporary files. Raises UserError while another
    process holds the lock, and if a file cannot be written.
    """
    working = DatasetFiles(
        _partial(files.database) / files.database.name, _partial(files.parquet), _partial(files.rejects)
    )
    lock = files.database.with_name(f".{files.database.name}.lock")
    try:
        files.database.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(lock, f"is building {files.database}; fix: wait for it"):
            try:
                recover_folder(files.parquet)
                _remove(working)
                working.database.parent.mkdir()
                yield working
            finally:
                _remove(working)
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{files.database}: cannot write: {error.strerror or error}") from None


def publish(working: DatasetFiles, files: DatasetFiles) -> None:
    """Flush the working files of a complete build and rename them to their final names."""
    for path in (*working.parquet.iterdir(), working.rejects, working.database):
        flush_to_disk(path)
    with deferred_interrupts():
        _replace(working, files)


def _replace(working: DatasetFiles, files: DatasetFiles) -> None:
    """Replace the Parquet, then the database.

    After a kill in between, Parquet and database have different sources, so the next build replaces both.
    """
    replace_folder(working.parquet, files.parquet)
    working.rejects.replace(files.rejects)
    # A write-ahead log that a killed writer left would be replayed into the new database.
    files.database.with_name(f"{files.database.name}.wal").unlink(missing_ok=True)
    working.database.replace(files.database)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _remove(working: DatasetFiles) -> None:
    shutil.rmtree(working.database.parent, ignore_errors=True)
    shutil.rmtree(working.parquet, ignore_errors=True)
    working.rejects.unlink(missing_ok=True)


def _follow_link(path: Path) -> Path:
    try:
        target = path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot follow the symbolic link: {error}") from None
    expect_utf8_name(str(target))
    return target


def _is_dataset_folder(folder: Path) -> bool:
    """Return whether a folder holds the Parquet of a dataset only, of this version or of an earlier one."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if names <= PARQUET_NAMES:
        return all(_has_columns(folder / name, PARQUET_COLUMNS) for name in names)
    return names <= EARLIER_NAMES


def _has_columns(file: Path, columns: list[str]) -> bool:
    """Return whether a Parquet file begins with some columns; further ones are labels and kept columns."""
    try:
        return bool(pq.read_schema(file).names[: len(columns)] == columns)
    except (OSError, pa.ArrowInvalid):
        return False
