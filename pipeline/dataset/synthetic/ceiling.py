"""Compare the score of a run on generated rows with its ceiling, the Pearson correlation of a perfect model."""

from dataclasses import dataclass

import numpy as np

from pipeline.dataset.database import open_dataset, rows_of
from pipeline.dataset.synthetic.generate import Values, true_expression_of
from pipeline.errors import UserError

USUAL_CEILING = 0.84
"""Pearson correlation of generated labels with their noise-free expression, in large files."""

MIN_ROWS = 100
"""Fewest rows for a reliable test of whether rows were generated."""


@dataclass(frozen=True)
class Score:
    """Pearson correlations with labels of the test split: of predictions, and of noise-free expression (ceiling)."""

    promoters: int
    pearson: float
    ceiling: float


def score_against_ceiling(dataset: str, run: str) -> Score:
    """Score the test predictions of a run. Raises UserError unless `promoter-bert generate` wrote the rows."""
    test_rows = "from predictions join promoters using (id) where run = ? and split = 'test' order by id"
    with open_dataset(dataset) as connection:
        rows = rows_of(connection, f"select sequence, expression, prediction {test_rows}", [run])
    if not rows:
        raise UserError(f"{dataset}: no predictions of run {run!r} on the test split; fix: train it with train.py")
    sequences, labels, predictions = (list(column) for column in zip(*rows, strict=True))
    ceiling = _pearson(true_expression_of(sequences), labels)
    if _is_below_usual(ceiling, len(rows)):
        raise UserError(
            f"{dataset}: the ceiling is known only for rows of promoter-bert generate; expected a correlation of "
            f"{USUAL_CEILING} between labels and the generator's expression, got {ceiling:.2f}"
        )
    return Score(len(rows), _pearson(predictions, labels), ceiling)


def ceiling_of(sequences: list[str], labels: list[float]) -> float | None:
    """Compute the Pearson correlation of labels and noise-free expression.

    None for rows that `promoter-bert generate` did not write, and for fewer than MIN_ROWS.
    """
    ceiling = _pearson(true_expression_of(sequences), labels)
    return None if len(labels) < MIN_ROWS or _is_below_usual(ceiling, len(labels)) else ceiling


def _is_below_usual(ceiling: float, rows: int) -> bool:
    """Test whether a ceiling is below the usual one by six standard errors (Fisher's z-transformation)."""
    return bool(np.arctanh(ceiling) + 6 / np.sqrt(max(rows - 3, 1)) < np.arctanh(USUAL_CEILING))


def _pearson(x: list[float] | Values, y: list[float]) -> float:
    return round(float(np.corrcoef(x, y)[0, 1]), 4) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0
