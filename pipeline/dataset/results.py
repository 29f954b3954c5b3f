"""Results of a build, and results of later steps (shards, runs, predictions) stored in the dataset."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.dataset.database import DatasetInfo, dataset_info, explain, open_dataset, row_count, rows_of
from pipeline.dataset.parquet import has_parquet
from pipeline.dataset.row_notes import RowNotes
from pipeline.dataset.rows.design import DesignCounts
from pipeline.dataset.rows.names import quoted
from pipeline.dataset.splits.split_leaks import LargestCluster, SplitLeaks, recorded_leaks
from pipeline.dataset.threshold import ThresholdRows, count_threshold_rows
from pipeline.dataset.workspace import RESULTS, DatasetFiles
from pipeline.errors import UserError


@dataclass(frozen=True)
class BuildResult:
    """A dataset that `build_dataset` wrote or kept."""

    dataset: str
    parquet: str
    info: DatasetInfo
    rejects: dict[str, int]
    """Rows by reason."""
    repairs: dict[str, int]
    """Promoters by the setting of the assay that repaired them."""
    held_out_pretrained: int
    """Promoters held out from fine-tuning that are in pretraining's train split."""
    runs_left_out: int = 0
    """Runs of the replaced dataset that are not carried over: their rows or splits differ."""
    layout: dict[str, Any] | None = None
    """The layout of text or FASTA; None for Parquet and for an existing dataset."""
    reused: bool = False
    """Whether the dataset existed, built from the same files and settings."""
    sequence_lengths: tuple[int, int] = (0, 0)
    """Shortest and longest promoter, in bases, adapters included."""
    label_range: tuple[float, float] | None = None
    """Lowest and highest label; None without labels."""
    sequence_column: str | None = None
    """Name or number of the column of sequences; None for FASTA."""
    label_column: str | None = None
    """Name or number of the column of labels, or their key in FASTA; None without labels."""
    kept_columns: list[str] = field(default_factory=list)
    """Columns of the input, other than sequences and labels, as they are named in relation promoters."""
    renamed_columns: dict[str, str] = field(default_factory=dict)
    """Columns of the input whose name is taken -> their names in relation promoters."""
    repeated_held_out: int = 0
    """For a given split: held-out rows whose sequence is also in training, kept as given."""
    designs: DesignCounts | None = None
    """Sequences of files of their own, and those without a row; None without such files and for a kept dataset."""
    labels: list[dict[str, Any]] = field(default_factory=list)
    """For each label: name, count of values, missing values, low and high (lowest and highest value)."""
    leaks: SplitLeaks | None = None
    """Held-out rows by what they have in common with training rows; None if an earlier version built the dataset."""
    largest_cluster: LargestCluster | None = None
    """For split = grouped; None for an existing dataset."""
    hints: dict[str, str] = field(default_factory=dict)
    """The overrides that would accept rejects, by reason; tried on these rows."""
    notes: RowNotes = field(default_factory=RowNotes)
    """Notes on the rows, for people; not in --json."""

    threshold: ThresholdRows | None = None
    """Rows around the pretraining threshold; None without labels."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for --json, without the flanks."""
        values = asdict(self)
        del values["threshold"]
        info = values.pop("info")
        del values["notes"]
        del info["upstream"], info["downstream"]
        values["splits"] = self.info.split_rows
        values["was_there"] = values.pop("reused")
        return {**info, **values}


REPEATED = "finetune where split <> 'train' and sequence in (select sequence from finetune where split = 'train')"


def read_result(connection: duckdb.DuckDBPyConnection, files: DatasetFiles, **values: Any) -> BuildResult:
    """Read the result of a build from the dataset at an open connection. values: fields that it does not hold."""
    by_count = "group by reason order by count(*) desc, reason"
    ((low, high, shortest, longest),) = rows_of(
        connection,
        "select min(expression), max(expression), min(strlen(sequence)), max(strlen(sequence)) from promoters",
    )
    ((largest,),) = rows_of(connection, "select getvariable('largest_cluster')")
    held_out = "(select finetune_test_rows + finetune_valid_rows from dataset)"
    info = dataset_info(connection)
    return BuildResult(
        str(files.database),
        str(files.parquet),
        info,
        rejects=dict(rows_of(connection, f"select reason, count(*) from rejects {by_count}")),
        repairs=dict(rows_of(connection, 'select rule, "rows" from repairs order by all')),
        held_out_pretrained=row_count(connection, f"pretrain where split = 'train' and id < {held_out}"),
        **values,
        sequence_lengths=(shortest, longest),
        repeated_held_out=row_count(connection, REPEATED) if info.split == "column" else 0,
        label_range=None if low is None else (low, high),
        labels=[_describe_label(connection, name, several=len(info.labels) > 1) for name in info.labels],
        leaks=recorded_leaks(connection),
        threshold=count_threshold_rows(connection, info),
        largest_cluster=None if largest is None else LargestCluster(**largest),
    )


def _describe_label(connection: duckdb.DuckDBPyConnection, name: str, several: bool) -> dict[str, Any]:
    column = quoted(name) if several else "expression"
    measures = f"count({column}), count(*) - count({column}), min({column}), max({column})"
    ((count, missing, low, high),) = rows_of(connection, f"select {measures} from promoters")
    return {"name": name, "count": count, "missing": missing, "low": low, "high": high}


def existing_result(files: DatasetFiles, source: str | None) -> BuildResult | None:
    """Read the existing dataset; None if it is incomplete or of another source."""
    if source is not None and files.database.exists():
        with suppress(UserError, duckdb.Error), open_dataset(files.database) as connection:
            if rows_of(connection, "select source from dataset") == [(source,)]:
                result = read_result(connection, files, reused=True)
                return result if has_parquet(files, result.info, source) else None
    return None


def define_measurements(connection: duckdb.DuckDBPyConnection, labels: Sequence[str]) -> None:
    """Create view `measurements`, the labels in long form, so that queries fit any number of labels.

    One label: one row per promoter, whose label is null. Several: one row per promoter and label that is present.
    labels: names of several; empty for one.
    """
    rows = "select id, null::varchar as label, expression from promoters"
    if labels:
        names = ", ".join(map(quoted, labels))
        rows = f"unpivot (select id, {names} from promoters) on {names} into name label value expression"
    connection.execute(f"create or replace view measurements as {rows}")
    connection.execute("comment on view measurements is 'one row per promoter, or with several labels one per label'")


def replace_rows(dataset: str, column: str, value: int | str, tables: dict[str, pa.Table]) -> None:
    """Replace the rows of relations where `column` has `value`, in one transaction. tables: new rows by relation.

    Raises UserError if the dataset was built by another version.
    """
    with open_dataset(dataset, read_only=False) as connection:
        try:
            connection.execute("begin")
            for table, rows in tables.items():
                connection.execute(f"delete from {table} where {column} = ?", [value])
                _insert(connection, table, rows)
            connection.execute("commit")
        except (duckdb.BinderException, duckdb.CatalogException):
            raise UserError(f"{dataset}: built by another version of promoter-bert; fix: build it again") from None
        except duckdb.Error as error:
            raise explain(error) from None


def carry_over(connection: duckdb.DuckDBPyConnection, target: Path) -> int:
    """Copy the results of the existing dataset into its rebuild; returns the number of runs omitted.

    Results are omitted if the dataset keys differ: their ids would refer to other promoters. Raises UserError if the
    results of the same dataset cannot be read.
    """
    key = "select key from dataset"
    tables: dict[str, pa.Table] = {}
    if target.exists():
        with open_dataset(target) as existing:
            present = {name for (name,) in rows_of(existing, "select table_name from information_schema.tables")}
            if rows_of(existing, key) != rows_of(connection, key):
                return row_count(existing, "runs") if "runs" in present else 0
            tables = {name: existing.sql(f"from {name}").to_arrow_table() for name in RESULTS if name in present}
    for name, rows in tables.items():
        _insert(connection, name, rows)
    return 0


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.register("new_rows", rows)
    connection.execute(f"insert into {table} by name select * from new_rows")
    connection.unregister("new_rows")
