"""Queries of a run's dataset: labels and held-out predictions, by the files of sql/queries."""

from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute

from model.runs.read import RunFiles
from pipeline.dataset.database import DatasetInfo, dataset_info, open_dataset, rows_of
from pipeline.dataset.query import Columns, answer
from pipeline.dataset.splits.split_leaks import recorded_leaks
from pipeline.dataset.synthetic.ceiling import ceiling_of
from pipeline.dataset.threshold import ThresholdRows, count_threshold_rows
from pipeline.errors import UserError
from pipeline.paths import looked_in
from pipeline.reporting.text import leaks_text

QUERIES = (
    "predicted_and_measured",
    "residuals_by_expression",
    "residuals_by_length",
    "residuals_by_gc",
    "calibration",
)


@dataclass(frozen=True)
class HeldOutResults:
    """Results for the predictions of one held-out split.

    rows: promoters of the split. results: query of QUERIES -> its columns; empty for several labels. ceiling: Pearson
    of the noise-free expression with the labels; None unless the promoters are synthetic. labels: of several, name ->
    result of QUERIES[0].
    """

    split: str
    rows: int
    results: dict[str, Columns]
    ceiling: float | None
    labels: dict[str, Columns] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetResults:
    """Results of the queries of a run's dataset.

    info: None without a dataset; threshold, rows around the pretraining threshold, and labels: None without labels.
    leaks: sentence of leaks_text about the held-out rows.
    """

    info: DatasetInfo | None = None
    threshold: ThresholdRows | None = None
    labels: Columns | None = None
    held_out: HeldOutResults | None = None
    leaks: str = ""


def query_dataset(run: RunFiles, path: Path | str | None) -> DatasetResults:
    """Query the dataset that a run was trained on; no results if it is at none of the paths that the run records.

    path: the DuckDB file, if it is at none of these paths. Raises UserError if this file does not exist, or is not the
    dataset of the run.
    """
    recorded = next((place for place in run.dataset_candidates if place.exists()), None)
    path = path or recorded
    if path is None:
        return DatasetResults()
    if not Path(path).exists():
        fix = (
            f"omit --dataset to use {recorded}"
            if recorded
            else f"--dataset PATH/{Path(run.config['dataset']['path']).name}"
        )
        raise UserError(
            f"{path}: no such dataset{looked_in(path)}; expected the DuckDB file that {run.folder} was trained on; "
            f"fix: {fix}"
        )
    with open_dataset(path) as connection:
        info = dataset_info(connection)
        expected = run.facts["dataset_key"]
        if info.key != expected:
            raise UserError(
                f"{path}: not the dataset that {run.folder} was trained on; expected key {expected[:16]}..., got "
                f"{info.key[:16]}...; fix: name the right file: --dataset FILE"
            )
        threshold = count_threshold_rows(connection, info)
        labels = answer(connection, "label_histogram") if threshold is not None else None
        leaks = leaks_text(recorded_leaks(connection)) if info.cut is not None else ""
        return DatasetResults(info, threshold, labels, _query_held_out(connection, run), leaks)


def _query_held_out(connection: duckdb.DuckDBPyConnection, run: RunFiles) -> HeldOutResults | None:
    """Query the predictions of the test split, or else the validation split; None if the run has neither."""
    table = run.predictions()
    if table is None:
        return None
    splits = set(table["split"].unique().to_pylist())
    split = "test" if "test" in splits else "valid"
    table = table.filter(pa.compute.equal(table["split"], split))
    _replace_predictions(connection, run, table)
    rows = rows_of(connection, "select sequence, expression from predictions join promoters using (id) order by id")
    if len(rows) != table.num_rows:
        missing = table.num_rows - len(rows)
        raise UserError(
            f"{run.folder}/predictions.parquet: {missing:,} of {table.num_rows:,} promoters are not in the dataset; "
            "expected the file that train.py wrote for this dataset"
        )
    sequences, labels = (list(column) for column in zip(*rows, strict=True))
    if run.labels:
        cells = {}
        for label in run.labels:
            _replace_predictions(connection, run, table.filter(pa.compute.equal(table["label"], label)))
            cells[label] = answer(connection, QUERIES[0])
        return HeldOutResults(split, len(rows) // len(run.labels), {}, None, cells)
    results = {name: answer(connection, name) for name in QUERIES}
    return HeldOutResults(split, len(rows), results, ceiling_of(sequences, labels))


def _replace_predictions(connection: duckdb.DuckDBPyConnection, run: RunFiles, table: pa.Table) -> None:
    """Replace relation `predictions`, which holds all published runs, by rows of a run for this connection."""
    connection.execute("drop view if exists temp.predictions")  # a query of a dataset of an earlier version made it
    connection.register("predictions", table.append_column("run", pa.array([run.name] * table.num_rows)))
