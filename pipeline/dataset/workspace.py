"""The files of a dataset on the disk: what a build may replace, its working folder, and the final renames."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipeline.dataset.database import is_duckdb, open_dataset, rows_of
from pipeline.errors import UserError
from pipeline.io.atomic import flush_to_disk, recover_folder, replace_folder
from pipeline.io.locks import hold_lock
from pipeline.io.remote import is_remote

RESULTS = ("shards", "records", "runs", "metrics", "predictions")
"""The relations of sql/10_results.sql."""
RELATIONS = {"promoters", "rejects", "repairs", "near_duplicates", "dataset", "finetune", "pretrain", *RESULTS}
"""All relations of a dataset."""
PARQUET_NAMES = {"finetune", "pretrain", "rejects.parquet"}
"""The entries of the folder of Parquet beside the database."""
OTHER_NAME = "fix: another name, --dataset NAME.duckdb"


def parquet_folder(target: Path) -> Path:
    """Name the folder of Parquet beside a dataset."""
    return target.with_suffix(".parquet")


def check_replaceable(target: Path, names: list[str]) -> None:
    """Raise UserError if the dataset would replace an input file, or anything that is not a dataset."""
    parquet = parquet_folder(target)
    if target.suffix != ".duckdb":
        raise UserError(f"{target}: expected a name ending in .duckdb; {OTHER_NAME}")
    if any(Path(name).resolve() in (target.resolve(), parquet.resolve()) for name in names if not is_remote(name)):
        raise UserError(f"{target} and {parquet}: the dataset would replace an input file; {OTHER_NAME}")
    if target.exists():
        if not is_duckdb(target):
            raise UserError(f"{target}: exists but is not a DuckDB file; {OTHER_NAME}")
        with open_dataset(target) as connection:
            relations = {name for (name,) in rows_of(connection, "select table_name from information_schema.tables")}
        if "dataset" not in relations or relations - RELATIONS:
            others = ", ".join(sorted(relations - RELATIONS)) or "no dataset"
            raise UserError(f"{target}: exists and holds {others}, which would be lost; {OTHER_NAME}")
    if parquet.exists() and not (parquet.is_dir() and {path.name for path in parquet.iterdir()} <= PARQUET_NAMES):
        raise UserError(f"{parquet}: exists but is not the Parquet of a dataset; {OTHER_NAME}")


@contextmanager
def working_folder(target: Path) -> Iterator[Path]:
    """Lock the target and make a folder beside it, removed at the end. The folder of a killed build is removed first.

    Raises UserError while another process holds the lock, and if the folder cannot be written to.
    """
    folder = target.with_name(f".{target.name}.partial")
    lock = target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(lock, f"is building {target}; wait for it"):
            try:
                recover_folder(parquet_folder(target))
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{target}: cannot write: {error.strerror or error}") from None


def publish(folder: Path, target: Path) -> None:
    """Rename a complete database and its Parquet in the working folder to their final names."""
    flush_to_disk(folder / target.name)
    # Ctrl-C reaches the main thread only, so it does not interrupt the replacement.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(int).result()  # starts the thread: an executor does not join one that is interrupted in its start
        thread.submit(_replace, folder, target).result()


def _replace(folder: Path, target: Path) -> None:
    """Replace Parquet, then database: after a kill in between, the next build rebuilds."""
    replace_folder(folder / "parquet", parquet_folder(target))
    # A write-ahead log that a killed writer left would be replayed into the new database.
    target.with_name(f"{target.name}.wal").unlink(missing_ok=True)
    (folder / target.name).replace(target)
