"""Metrics of predictions: correlations, squared errors, and the perplexity of a masked language model."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating]
"""Floats of any width: (rows,)."""


def regression_scores(prediction: Vector, label: Vector) -> dict[str, float]:
    """Compute pearson, spearman, mse and r2 of predictions and labels: (rows,) each, on the scale of the labels."""
    return {
        "pearson": pearson(prediction, label),
        "spearman": spearman(prediction, label),
        "mse": mse(prediction, label),
        "r2": r2(prediction, label),
    }


def scores_of_labels(
    prediction: npt.NDArray[np.float32], label: npt.NDArray[np.float32], names: Sequence[str]
) -> dict[str, float]:
    """Compute the scores of several labels: `pearson/NAME` and so on per label, and their means as `pearson` and so on.

    prediction, label: (rows, labels), NaN for a missing label. A label without values has no scores. The means are over
    the labels with scores.
    """
    scores = {
        name: regression_scores(predicted, measured)
        for name, predicted, measured in values_of_labels(prediction, label, names)
        if len(measured)
    }
    empty = np.empty(0, np.float32)
    means = {
        metric: float(np.mean([score[metric] for score in scores.values()] or [0.0]))
        for metric in regression_scores(empty, empty)
    }
    return means | {f"{metric}/{name}": score[metric] for metric in means for name, score in scores.items()}


def values_of_labels(
    prediction: npt.NDArray[np.float32], label: npt.NDArray[np.float32], names: Sequence[str]
) -> Iterator[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Yield name, predictions and labels, (values,) each, of the rows where a label is present.

    prediction, label: (rows, labels), NaN for a missing label.
    """
    for place, name in enumerate(names):
        present = np.isfinite(label[:, place])
        yield name, prediction[present, place], label[present, place]


def pearson(x: Vector, y: Vector) -> float:
    """Compute Pearson's r of two vectors (rows,); 0 if undefined (constant values, or fewer than two)."""
    from scipy.stats import pearsonr  # 0.5 s to import

    return _correlation(pearsonr, _float64(x), _float64(y))


def spearman(x: Vector, y: Vector) -> float:
    """Compute Spearman's rho of two vectors (rows,), ties by mean rank; 0 if undefined."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, x, y)


def mse(prediction: Vector, label: Vector) -> float:
    """Compute the mean of (prediction - label)^2 in squared units of the labels; 0 for no rows. Both: (rows,)."""
    error = _float64(prediction) - _float64(label)
    return float(np.mean(error**2)) if len(error) else 0.0


def r2(prediction: Vector, label: Vector) -> float:
    """Compute the coefficient of determination, 1 - sum (label - prediction)^2 / sum (label - mean label)^2.

    Both arguments: (rows,). 0 for predictions that all equal the mean label, negative for worse ones; also 0 if
    undefined (constant labels). Never above the square of Pearson's r, which ignores scale and shift.
    """
    if not len(label) or not np.ptp(label) > 0:
        return 0.0
    labels = _float64(label)
    return 1.0 - mse(prediction, label) / float(np.mean((labels - labels.mean()) ** 2))


def base_perplexity(loss: float, k: int) -> float:
    """Compute the perplexity per base from the mean cross-entropy per masked k-mer in nats: exp(loss / k).

    Perplexity is the exponential of the cross-entropy per unit (Jelinek et al. 1977, J. Acoust. Soc. Am. 62, S63). By
    the chain rule, the cross-entropy of a k-mer is the sum over its k bases. The k-mers of a reading frame do not
    overlap, so a masked one hides k bases of its own, also inside a run of masked ones: loss / k is the mean per base
    at any k. Overlapping tokens would not allow this: a run of m hides only m - k + 1 bases. Random bases with equal
    frequencies give 4. BERT's masking leaves 10 % of the selected tokens visible (Devlin et al. 2019,
    arXiv 1810.04805), so a model can score below the entropy of the sequence.
    """
    return math.exp(min(loss / k, 700.0))  # a diverged loss must not end a run with an OverflowError


def _float64(x: Vector) -> npt.NDArray[np.float64]:
    """Convert to float64: scipy computes in the dtype of its input, and float32 costs the fourth digit."""
    return x.astype(np.float64)


def _correlation(method: Callable[[Vector, Vector], Any], x: Vector, y: Vector) -> float:
    if len(x) < 2 or not np.ptp(x) > 0 or not np.ptp(y) > 0:
        return 0.0
    value = float(method(x, y).statistic)
    return value if np.isfinite(value) else 0.0
