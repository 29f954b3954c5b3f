"""Results of a finished run: scores, intervals and predictions of its held-out splits, and their publication."""

import json
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from model.runs.metrics_file import read_long_metrics
from model.runs.publish import publish_run
from model.scoring.bootstrap import correlation_intervals
from model.scoring.metrics import values_of_labels
from model.scoring.scale import find_scale_problem
from pipeline.errors import UserError
from pipeline.io.atomic import new_file, write_text

Values = npt.NDArray[np.float32]
"""Labels or predictions: (rows,), or (rows, labels) for several labels, NaN for a missing label."""


def score_held_out(prediction: Values, expression: Values, labels: Sequence[str]) -> dict[str, Any]:
    """Compute the intervals of the scores of a summary, and the problems of scale if there are any."""
    intervals = _compute_intervals(prediction, expression, labels)
    problems = _find_scale_problems(prediction, expression, labels)
    return {"intervals": intervals, **({"scale_problems": problems} if problems else {})}


def _compute_intervals(prediction: Values, expression: Values, labels: Sequence[str]) -> dict[str, list[float]]:
    """Compute the 95 % intervals of the correlations; with several labels, of each label as `pearson/NAME`."""
    if not labels:
        named = correlation_intervals(prediction, expression)
    else:
        named = {
            f"{metric}/{name}": ends
            for name, predicted, measured in values_of_labels(prediction, expression, labels)
            if len(measured)
            for metric, ends in correlation_intervals(predicted, measured).items()
        }
    return {name: list(ends) for name, ends in named.items()}  # as JSON reads them


def _find_scale_problems(prediction: Values, expression: Values, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Find the labels whose predictions are on another scale, by name; the name of a single label is empty."""
    values = values_of_labels(prediction, expression, labels) if labels else [("", prediction, expression)]
    found = {name: find_scale_problem(predicted, measured) for name, predicted, measured in values if len(measured)}
    return {name: problem for name, problem in found.items() if problem is not None}


def standardized_error(prediction: Values, expression: Values, label_sd: float | list[float]) -> float:
    """Compute the mean squared error of standardized labels. label_sd: standard deviation of the label, or of each."""
    sd = np.asarray(label_sd)
    errors = (prediction - expression) / (sd + np.equal(sd, 0))
    return float(np.mean(errors[np.isfinite(expression)] ** 2))


def tabulate_predictions(split: str, ids: npt.NDArray[np.int64], prediction: Values, labels: Sequence[str]) -> pa.Table:
    """Make the rows of predictions.parquet: one per promoter, or with several labels one per promoter and label."""
    values = prediction.astype(np.float64)
    columns: dict[str, Any] = {}
    if labels:
        columns["label"] = list(labels) * len(ids)
        ids, values = np.repeat(ids, len(labels)), values.ravel()
    return pa.table({"id": ids, "split": [split] * len(ids), "prediction": values, **columns})


def write_results(folder: Path, predictions: Sequence[pa.Table], summary: dict[str, Any]) -> None:
    """Write predictions.parquet; then summary.json, which marks the run as finished."""
    with new_file(folder / "predictions.parquet") as temporary:
        pa.parquet.write_table(pa.concat_tables(predictions), temporary)
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def publish_results(folder: Path, dataset: str, summary: dict[str, Any]) -> dict[str, Any]:
    """Publish a finished run into the dataset. If that fails, the note of the returned summary has the reason.

    Raises UserError if the predictions cannot be read.
    """
    scores = summary["scores"].get("test", {})
    facts = {
        "finished": datetime.fromisoformat(summary["finished"]),
        "dataset_key": summary["dataset_key"],
        "shard_key": summary["shard_key"],
        "test_pearson": scores.get("pearson"),
        "test_spearman": scores.get("spearman"),
        "config": json.dumps(summary["config"]),
    }
    metrics, path = read_long_metrics(folder / "metrics.jsonl"), folder / "predictions.parquet"
    try:
        predictions = pa.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: the predictions cannot be read ({str(error).splitlines()[0]}); fix: "
            f"rm {shlex.quote(str(folder / 'summary.json'))}, then run the same command to compute them again"
        ) from None
    try:
        publish_run(dataset, summary["run"], facts, metrics, predictions)
    except UserError as error:
        problem = f"the scores are in {folder}, but not in the dataset yet: {error}"
        return {**summary, "note": f"{problem}; afterwards, run the same command to publish them"}
    return summary
