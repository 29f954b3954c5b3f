"""How far a run on generated rows came: its test predictions beside the noise-free expression."""

from dataclasses import dataclass

import numpy as np

from pipeline.database import reading
from pipeline.errors import UserError
from pipeline.generate import true_expression_of


@dataclass(frozen=True)
class Score:
    """Pearson of predictions and of the noise-free expression, each with the labels of the test split."""

    promoters: int
    pearson: float
    ceiling: float


def score_against_ceiling(dataset: str, run: str) -> Score:
    """Score a finished run; meaningful for rows of `promoter-bert generate` only."""
    with reading(dataset) as connection:
        rows = connection.execute(
            "select sequence, expression, prediction from predictions join promoters using (id) "
            "where run = ? and split = 'test' order by id",
            [run],
        ).fetchall()
    if not rows:
        raise UserError(f"{dataset}: no predictions of run {run!r} on the test split; train it first: train.py")
    sequences, labels, predictions = (list(column) for column in zip(*rows, strict=True))
    truth = true_expression_of(sequences)
    return Score(len(rows), _pearson(predictions, labels), _pearson(list(truth), labels))


def _pearson(x: list[float], y: list[float]) -> float:
    return round(float(np.corrcoef(x, y)[0, 1]), 4) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0
