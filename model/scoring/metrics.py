"""Scores of predictions: correlations by scipy, squared errors; perplexity of a masked language model."""

import math

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating]


def regression_scores(prediction: Vector, label: Vector) -> dict[str, float]:
    """pearson, spearman, mse and r2 of predictions (rows,) beside labels (rows,), on the scale of the labels."""
    return {
        "pearson": pearson(prediction, label),
        "spearman": spearman(prediction, label),
        "mse": mse(prediction, label),
        "r2": r2(prediction, label),
    }


def pearson(x: Vector, y: Vector) -> float:
    """Pearson's r of two vectors; 0 where it is not defined (a constant, or fewer than two values)."""
    from scipy.stats import pearsonr

    return _defined(float(pearsonr(_double(x), _double(y)).statistic)) if _varied(x, y) else 0.0


def spearman(x: Vector, y: Vector) -> float:
    """Spearman's rho of two vectors, ties by mean rank; 0 where it is not defined."""
    from scipy.stats import spearmanr

    return _defined(float(spearmanr(x, y).statistic)) if _varied(x, y) else 0.0


def mse(prediction: Vector, label: Vector) -> float:
    """Mean of (prediction - label)^2, in squared units of the labels; 0 for no rows."""
    error = _double(prediction) - _double(label)
    return float(np.mean(error**2)) if len(error) else 0.0


def r2(prediction: Vector, label: Vector) -> float:
    """Coefficient of determination, 1 - sum (label - prediction)^2 / sum (label - mean label)^2.

    0 for a model that always says the mean of these labels, negative for one that is further off; also 0 where it is
    not defined (labels that are all the same). At most the square of Pearson's r, which forgives scale and shift.
    """
    if not len(label) or not np.ptp(label) > 0:
        return 0.0
    truth = _double(label)
    return 1.0 - mse(prediction, label) / float(np.mean((truth - truth.mean()) ** 2))


def base_perplexity(loss: float, k: int) -> float:
    """Perplexity a base of a model with this mean cross-entropy (in nats) a masked k-mer: exp(loss / k).

    The k-mers of a reading frame do not overlap, so each stands for k bases of its own. Four bases drawn with equal
    chances give 4; the 10 % of masked tokens that are left in sight let a model come below what the sequence allows.
    """
    return math.exp(min(loss / k, 700.0))  # a loss that large is no number any more, but must not end a run here


def _double(x: Vector) -> npt.NDArray[np.float64]:
    """scipy computes in the type it is given; float32 costs it the fourth digit."""
    return x.astype(np.float64)


def _varied(x: Vector, y: Vector) -> bool:
    return len(x) > 1 and bool(np.ptp(x) > 0) and bool(np.ptp(y) > 0)


def _defined(value: float) -> float:
    return value if np.isfinite(value) else 0.0
