"""Check that a build loses nothing of the dataset that it replaces: labels, recorded runs, rows of other files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from pipeline.dataset.database import open_dataset, read_sequence_name, rows_of
from pipeline.dataset.workspace import RESULTS
from pipeline.errors import UserError
from pipeline.io.remote import is_remote
from pipeline.runtime.text import format_count

MOST_NAMES = 3
"""Names of files or runs in a message."""


@dataclass(frozen=True)
class DatasetContent:
    """The parts of a dataset that a replacement could lose, and its assay.name.

    files: None if the dataset does not record them.
    """

    key: str | None
    promoters: int
    labelled: bool
    files: list[str] | None
    runs: list[str]
    name: str


def recorded_names(names: Sequence[str], folder: Path) -> list[str]:
    """Name input files relative to the folder of the dataset, so that both can move together; URLs stay."""
    return sorted(
        name if is_remote(name) else os.path.relpath(Path(name).resolve(), folder.resolve()) for name in names
    )


def check_replacement(connection: duckdb.DuckDBPyConnection, database: Path) -> None:
    """Raise UserError if the new dataset at a connection has not all that the existing one holds.

    Datasets with the same key have the same rows, labels and splits, and keep their runs.
    """
    if not database.exists():
        return
    with open_dataset(database) as existing_connection:
        existing = _read_content(existing_connection)
    new = _read_content(connection)
    if new.key == existing.key:
        return
    losses = []
    if existing.labelled and not new.labelled:
        losses.append("the labels")
    if existing.runs:
        losses.append(f"{format_count(len(existing.runs), 'recorded run')} ({_list(existing.runs)})")
    if new.files != existing.files:
        losses.append(f"rows of {_list(existing.files) if existing.files else 'its files (not recorded)'}")
    if losses:
        raise UserError(
            f"{database}: holds {_describe(existing)}; this build of {_list(new.files or [])} has {_describe(new)} "
            f"and would lose {', '.join(losses)}; fix: --dataset NAME.duckdb for a second dataset, or --replace"
        )


def _read_content(connection: duckdb.DuckDBPyConnection) -> DatasetContent:
    """Read a dataset of any version: columns may be missing."""
    result = connection.execute("from dataset")
    columns = [column for column, *_ in result.description or ()]
    row = dict(zip(columns, next(iter(result.fetchall()), ()), strict=False))
    with_runs = "select table_name from information_schema.columns where column_name = 'run'"
    runs = {
        str(run)
        for (relation,) in rows_of(connection, with_runs)
        if relation in RESULTS
        for (run,) in rows_of(connection, f"select distinct run from {relation}")
    }
    return DatasetContent(
        row.get("key"),
        row.get("promoters") or 0,
        row.get("cut") is not None,
        row.get("files"),
        sorted(runs),
        read_sequence_name(row.get("settings")),
    )


def _describe(content: DatasetContent) -> str:
    labels = "with" if content.labelled else "without"
    return f"{format_count(content.promoters, content.name)} {labels} labels"


def _list(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")
