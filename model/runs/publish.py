"""Publish a finished run into the dataset: relations `runs`, `metrics` and `predictions`."""

from typing import Any

import pyarrow as pa

from pipeline.dataset.database import reading, rows_of
from pipeline.dataset.results import replace_rows


def publish_run(
    dataset: str, run: str, facts: dict[str, Any], metrics: list[dict[str, Any]], predictions: pa.Table
) -> None:
    """Relations `runs`, `metrics` and `predictions`; nothing is written where they hold this very run already.

    facts: the columns of `runs` but the first; finished, a time, tells two runs of the same name apart.
    """
    with reading(dataset) as connection:
        if rows_of(connection, "from runs where run = ? and finished = ?", [run, facts["finished"]]):
            return
    tables = {
        "runs": pa.Table.from_pylist([{"run": run, **facts}]),
        "metrics": pa.Table.from_pylist([{"run": run, **metric} for metric in metrics]),
        "predictions": predictions.append_column("run", pa.array([run] * predictions.num_rows)),
    }
    replace_rows(dataset, "run", run, tables)
