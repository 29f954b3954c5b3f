"""Test of the difference of two correlations with the same labels: paired bootstrap over rows.

Both predictions of a row are drawn together, so what the two models have in common, such as rows that are hard for
both, cancels in the difference. Two overlapping intervals say little: the scores of two models on the same rows are
correlated.

The two-sided p-value is twice the smaller share of resamples in which the difference is at most 0, or at least 0. One
is added to both counts, so that B resamples show no p-value below 2 / (B + 1) (Davison and Hinkley 1997, Bootstrap
Methods and Their Application, doi 10.1017/CBO9780511802843, chapter 4).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.scoring.bootstrap import (
    Interval,
    Numbers,
    ResampledCorrelations,
    draw_resamples,
    percentile_interval,
)
from model.scoring.metrics import pearson, spearman
from model.scoring.scores import count_resamples


@dataclass(frozen=True)
class Difference:
    """Difference of a score, with its 95 % interval and its two-sided p-value."""

    value: float
    interval: Interval
    p_value: float


@dataclass(frozen=True)
class PairedDifferences:
    """Differences of the correlations of two predictions with the same labels.

    rows: with all three values. smallest_p: smallest p-value that these resamples can show.
    """

    rows: int
    resamples: int
    smallest_p: float
    pearson: Difference
    spearman: Difference


def compare_correlations(
    first: npt.NDArray[np.floating],
    second: npt.NDArray[np.floating],
    label: npt.NDArray[np.floating],
    resamples: int | None = None,
    seed: int = 0,
) -> PairedDifferences:
    """Test the correlations of `first` minus those of `second`, predictions and labels of the same rows: (rows,) each.

    Rows without a value (NaN) in any of the three are left out. resamples: by default fewer for very many rows. The
    same seed gives the same result. A correlation with constant predictions counts as 0, as in the scores. Resamples
    in which both are undefined are ignored.
    """
    present = np.isfinite(first) & np.isfinite(second) & np.isfinite(label)
    x, other, y = (values[present].astype(np.float64) for values in (first, second, label))
    resamples = count_resamples(len(y)) if resamples is None else resamples
    drawn = np.full((2, resamples, 2), np.nan)
    if len(y) > 1:
        own, others = ResampledCorrelations(x, y), ResampledCorrelations(other, y)
        for number, counts in enumerate(draw_resamples(len(y), resamples, seed)):
            drawn[:, number] = own.compute(counts), others.compute(counts)
    differences = [
        Difference(score(x, y) - score(other, y), percentile_interval(column), _p_value(column))
        for score, column in zip((pearson, spearman), _subtract(*drawn).T, strict=True)
    ]
    return PairedDifferences(len(y), resamples, 2 / (resamples + 1), *differences)


def _subtract(own: Numbers, others: Numbers) -> Numbers:
    """Subtract correlations; an undefined one (NaN) counts as 0 unless both are undefined."""
    undefined = np.isnan(own) & np.isnan(others)
    return np.where(undefined, np.nan, np.nan_to_num(own) - np.nan_to_num(others))


def _p_value(values: Numbers) -> float:
    """Compute the two-sided p-value of a difference of 0 from the differences in resamples: (resamples,)."""
    defined = values[np.isfinite(values)]
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))
