"""Scores of predictions with their 95 % intervals, over the rows that have a prediction and a label."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.scoring.bootstrap import RESAMPLES, Interval, correlation_intervals, regression_intervals
from model.scoring.metrics import pearson, regression_scores, spearman
from pipeline.runtime.text import format_interval

MOST_DRAWS = 10**8
"""Rows times resamples, at most: intervals of millions of rows are narrow, and a resample of them takes 0.2 s."""
FEWEST_RESAMPLES = 100

Vector = npt.NDArray[np.floating]
"""Floats of any width: (rows,)."""


@dataclass(frozen=True)
class CorrelationScores:
    """Correlations of two vectors with 95 % intervals. rows: with both values."""

    rows: int
    pearson: float
    spearman: float
    pearson_interval: Interval
    spearman_interval: Interval


@dataclass(frozen=True)
class RegressionScores(CorrelationScores):
    """Scores of predictions. mse: in squared units of the labels; r2: coefficient of determination."""

    mse: float
    mse_interval: Interval
    r2: float
    r2_interval: Interval

    @property
    def rmse(self) -> float:
        """Return the root mean squared error: the typical error, in the unit of the labels."""
        return math.sqrt(self.mse)

    @property
    def rmse_cell(self) -> str:
        """Format the root mean squared error for a table. Fewer than two rows: none."""
        return "-" if self.rows < 2 else f"{self.rmse:.3f}"

    def cells(self, digits: int = 4) -> list[str]:
        """Format the scores with their intervals for a table: Pearson, Spearman, MSE, R2. Fewer than two rows: none.

        digits: after the decimal point.
        """
        if self.rows < 2:
            return ["-"] * 4
        scores = (
            (self.pearson, self.pearson_interval),
            (self.spearman, self.spearman_interval),
            (self.mse, self.mse_interval),
            (self.r2, self.r2_interval),
        )
        return [format_interval(value, interval, digits) for value, interval in scores]


def score_correlations(prediction: Vector, label: Vector) -> CorrelationScores:
    """Correlate predictions with labels, (rows,) each; rows without either (NaN) are left out."""
    x, y = _both(prediction, label)
    intervals = correlation_intervals(x, y, count_resamples(len(x)))
    return CorrelationScores(len(x), pearson(x, y), spearman(x, y), intervals["pearson"], intervals["spearman"])


def score_regression(prediction: Vector, label: Vector) -> RegressionScores:
    """Score predictions against labels on one scale, (rows,) each; rows without either (NaN) are left out."""
    x, y = _both(prediction, label)
    scores, intervals = regression_scores(x, y), regression_intervals(x, y, count_resamples(len(x)))
    values = {
        key: value for name in scores for key, value in ((name, scores[name]), (f"{name}_interval", intervals[name]))
    }
    return RegressionScores(len(x), **values)  # type: ignore[arg-type]


def _both(prediction: Vector, label: Vector) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    present = np.isfinite(prediction) & np.isfinite(label)
    return prediction[present].astype(np.float64), label[present].astype(np.float64)


def count_resamples(rows: int) -> int:
    """Return the number of resamples: fewer for very many rows."""
    return max(FEWEST_RESAMPLES, min(RESAMPLES, MOST_DRAWS // max(rows, 1)))
