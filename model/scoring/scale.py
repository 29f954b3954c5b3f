"""Find predictions that rank the rows well but are on another scale than the labels.

Pearson's r ignores scale and shift, R2 does not. With the standard deviations s and means m of predictions p and labels
y, Murphy (1988, Monthly Weather Review 116, 2417) splits the loss between them:

    R2 = r^2 - (r - s_p / s_y)^2 - ((m_p - m_y) / s_y)^2

The second term is 0 at s_p = r s_y. Predictions that are nearly constant have s_p near 0, and so R2 near 0 at any r.
"""

from collections.abc import Mapping

import numpy as np

from model.scoring.metrics import Vector, pearson, r2

LEAST_PEARSON = 0.3
"""Pearson from which predictions rank the rows so well that a low R2 is the scale's fault."""
LEAST_SHARE = 0.5
"""R2 below this share of r^2 is a problem. From the scale alone: s_p below 0.29 or above 1.71 times r s_y."""


def is_off_scale(r: float, determination: float) -> bool:
    """Whether r is high and R2, the coefficient of determination, far below its square."""
    return r >= LEAST_PEARSON and determination < LEAST_SHARE * r**2


def find_scale_problem(prediction: Vector, label: Vector) -> dict[str, float] | None:
    """Compare the scales of predictions and labels, (rows,) each. Returns None if R2 is near r^2, or r is low.

    The result has pearson, r2, and mean and sd of both, in units of the labels.
    """
    r, share = pearson(prediction, label), r2(prediction, label)
    if not is_off_scale(r, share):
        return None
    moments = {
        f"{name}_{moment}": float(getattr(values, moment)())
        for name, values in (("prediction", np.asarray(prediction, float)), ("label", np.asarray(label, float)))
        for moment in ("mean", "std")
    }
    return {"pearson": r, "r2": share, **{name.replace("_std", "_sd"): value for name, value in moments.items()}}


def describe_scale_problem(problem: Mapping[str, float]) -> str:
    """Describe a problem of find_scale_problem with its numbers, and what helps. Without a full stop."""
    sd, best_sd = problem["prediction_sd"], problem["pearson"] * problem["label_sd"]
    fact = f"their sd is {sd:.3g}, and r x sd of the labels is {best_sd:.3g}"
    if abs(problem["prediction_mean"] - problem["label_mean"]) > abs(best_sd - sd):
        cause, fix = "level not learned", "compare the labels of the splits"
        fact = f"their mean is {problem['prediction_mean']:.3g}, and that of the labels {problem['label_mean']:.3g}"
    elif sd > best_sd:
        cause, fix = "predictions vary too much, scale not learned", "train shorter, or on more rows"
    else:
        cause, fix = "predictions nearly constant, scale not learned", "train longer, or raise finetune.learning_rate"
    return f"{cause}: R2 {problem['r2']:.3f}, but r^2 = {problem['pearson'] ** 2:.3f}; {fact}; fix: {fix}"
