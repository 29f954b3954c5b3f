"""Publish a finished run into the dataset, in the relations `runs`, `metrics` and `predictions`."""

from typing import Any

import pyarrow as pa

from pipeline.dataset.database import open_dataset, rows_of
from pipeline.dataset.results import replace_rows

METRICS = pa.schema(
    {
        "run": pa.string(),
        "stage": pa.string(),
        "step": pa.int64(),
        "epoch": pa.float64(),
        "metric": pa.string(),
        "value": pa.float64(),
    }
)
"""Columns of relation `metrics`. A baseline without epochs has no rows."""


def publish_run(
    dataset: str, run: str, facts: dict[str, Any], metrics: list[dict[str, Any]], predictions: pa.Table
) -> None:
    """Write the rows of a run into the three relations, unless they exist.

    facts: values of the columns of `runs` except the name; the time `finished` distinguishes two runs of one name.
    predictions: columns id, split and prediction. Raises UserError if the dataset cannot be opened or is locked.
    """
    with open_dataset(dataset) as connection:
        if rows_of(connection, "from runs where run = ? and finished = ?", [run, facts["finished"]]):
            return
    tables = {
        "runs": pa.Table.from_pylist([{"run": run, **facts}]),
        "metrics": pa.Table.from_pylist([{"run": run, **metric} for metric in metrics], METRICS),
        "predictions": predictions.append_column("run", pa.array([run] * predictions.num_rows)),
    }
    replace_rows(dataset, "run", run, tables)
