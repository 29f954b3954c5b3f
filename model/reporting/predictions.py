"""The held-out promoters of a run, asked of its dataset by the files of sql/queries."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute

from model.runs.read import RunFiles
from pipeline.dataset.database import DatasetInfo, dataset_info, reading, rows_of
from pipeline.dataset.query import Columns, answer
from pipeline.dataset.synthetic_ceiling import ceiling_of
from pipeline.errors import UserError

QUERIES = (
    "predicted_and_measured",
    "residuals_by_expression",
    "residuals_by_length",
    "residuals_by_gc",
    "calibration",
)


@dataclass(frozen=True)
class HeldOut:
    """One split's promoters. answers: what each of QUERIES says of them; ceiling: Pearson of the noise-free expression
    with these labels, where the rows were generated.
    """

    split: str
    rows: int
    answers: dict[str, Columns]
    ceiling: float | None


@contextmanager
def dataset_of(run: RunFiles, given: Path | None) -> Iterator[tuple[duckdb.DuckDBPyConnection, DatasetInfo] | None]:
    """The dataset that a run was trained on, opened; None where it is not where the run found it.

    given: the file, if not that of the run's configuration. Raises UserError where it is missing, and where the dataset
    is another one than the run's.
    """
    found = next((place for place in run.dataset_places if place.exists()), None)
    path = found if given is None else given
    if path is None:
        yield None
        return
    if not Path(path).exists():
        there = f"{found} is there; leave --dataset away" if found else f"it was {run.config['dataset']['path']}"
        raise UserError(f"{path}: no such dataset; expected the DuckDB file that {run.folder} was trained on: {there}")
    with reading(path) as connection:
        info = dataset_info(connection)
        expected = run.facts["dataset_key"]
        if info.key != expected:
            raise UserError(
                f"{path}: not the dataset that {run.folder} was trained on (its key is {info.key[:16]}..., expected "
                f"{expected[:16]}...); name that one with --dataset"
            )
        yield connection, info


def held_out(connection: duckdb.DuckDBPyConnection, run: RunFiles) -> HeldOut | None:
    """The test split, else the validation split; None where the run has predicted neither."""
    table = run.predictions()
    if table is None:
        return None
    splits = set(table["split"].unique().to_pylist())
    split = "test" if "test" in splits else "valid"
    table = table.filter(pa.compute.equal(table["split"], split))
    # The queries are those of the dataset's relation `predictions`, which holds all runs: here it is this one alone.
    connection.register("predictions", table.append_column("run", pa.array([run.name] * table.num_rows)))
    rows = rows_of(connection, "select sequence, expression from predictions join promoters using (id) order by id")
    if len(rows) != table.num_rows:
        missing = table.num_rows - len(rows)
        raise UserError(
            f"{run.folder}/predictions.parquet: {missing:,} of {table.num_rows:,} promoters are not in the dataset; "
            "expected the file that train.py wrote"
        )
    sequences, labels = (list(column) for column in zip(*rows, strict=True))
    found = {name: answer(connection, name) for name in QUERIES}
    return HeldOut(split, len(rows), found, ceiling_of(sequences, labels))
