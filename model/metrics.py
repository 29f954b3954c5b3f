"""Correlations, by scipy."""

import numpy as np
import numpy.typing as npt


def pearson(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> float:
    """Pearson's r of two vectors; 0 where it is not defined (a constant, or fewer than two values)."""
    from scipy.stats import pearsonr

    return _defined(float(pearsonr(_double(x), _double(y)).statistic)) if _varied(x, y) else 0.0


def spearman(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> float:
    """Spearman's rho of two vectors, ties by mean rank; 0 where it is not defined."""
    from scipy.stats import spearmanr

    return _defined(float(spearmanr(x, y).statistic)) if _varied(x, y) else 0.0


def _double(x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """scipy computes in the type it is given; float32 costs it the fourth digit."""
    return x.astype(np.float64)


def _varied(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> bool:
    return len(x) > 1 and bool(np.ptp(x) > 0) and bool(np.ptp(y) > 0)


def _defined(value: float) -> float:
    return value if np.isfinite(value) else 0.0
