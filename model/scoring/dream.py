"""Score of the DREAM Challenge 2022 (random promoters in yeast): weighted mean of nine correlations.

    Pearson Score  = sum of w r^2  / sum of w
    Spearman Score = sum of w rho  / sum of w        (not squared)

r and rho are the Pearson and Spearman correlations of predicted and measured expression over the rows of a subset. For
SNVs, motif perturbation and motif tiling they correlate differences within pairs (changed minus original promoter).
The final score excludes the rows and pairs of the public leaderboard. A pair with only one public row is kept. Each row
or pair counts once, even if a subset file names it several times.

Source: Rafi et al., A community effort to optimize sequence-based deep learning models of gene regulation, Nature
Biotechnology 2024 (doi 10.1038/s41587-024-02414-w); data and subset files: Zenodo 10633252.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.scoring.scores import CorrelationScores, score_correlations
from pipeline.errors import UserError

WEIGHTS = {
    "all": 1.0,
    "high": 0.3,
    "low": 0.3,
    "yeast": 0.3,
    "random": 0.3,
    "challenging": 0.5,
    "SNVs": 1.25,
    "motif_perturbation": 0.3,
    "motif_tiling": 0.4,
}
"""Subset -> its weight w in both scores."""
PAIRED = ("SNVs", "motif_perturbation", "motif_tiling")
"""Subsets of pairs, whose differences are correlated."""

Rows = npt.NDArray[np.int64]
"""Row numbers of the test file, from 0: (rows,), or (pairs, 2) of the changed and the original promoter."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DreamScore:
    """Correlations by subset, in the order of WEIGHTS, and both total scores; these are None if a subset is missing.

    In a subset of pairs, `rows` of its correlations is the number of pairs.
    """

    subsets: dict[str, CorrelationScores]
    pearson_score: float | None
    spearman_score: float | None
    missing: list[str]


def dream_score(prediction: Values, label: Values, subsets: Mapping[str, Rows]) -> DreamScore:
    """Compute the DREAM Challenge score of predictions for labels: float64 (rows,) each, by row of the test file.

    NaN: no value for a row. subsets: name -> rows or pairs, `all` included. Raises UserError for a subset of fewer than
    two rows or pairs, and for a row of a subset without label or prediction.
    """
    parts = {name: _correlation(name, prediction, label, subsets[name]) for name in WEIGHTS if name in subsets}
    missing = [name for name in WEIGHTS if name not in subsets]
    if missing:
        return DreamScore(parts, None, None, missing)
    return DreamScore(
        parts,
        weighted_mean({name: part.pearson**2 for name, part in parts.items()}),
        weighted_mean({name: part.spearman for name, part in parts.items()}),
        [],
    )


def weighted_mean(parts: Mapping[str, float]) -> float:
    """Compute the mean of nine values by subset, with the weights of the challenge."""
    return sum(weight * parts[name] for name, weight in WEIGHTS.items()) / sum(WEIGHTS.values())


def final_subsets(subsets: Mapping[str, Rows], public: Mapping[str, Rows]) -> dict[str, Rows]:
    """Exclude the rows and pairs of the public leaderboard from the subsets.

    Rows of a subset: (n,) int64, of pairs (n, 2).
    """
    public_rows = np.unique(np.concatenate([rows.ravel() for rows in public.values()]))
    pairs = [public[name] for name in PAIRED if name in public]
    public_pairs = _pair_ids(np.concatenate(pairs)) if pairs else np.empty(0, np.int64)
    return {
        name: rows[~np.isin(_pair_ids(rows), public_pairs)] if rows.ndim == 2 else rows[~np.isin(rows, public_rows)]
        for name, rows in subsets.items()
    }


def _pair_ids(pairs: Rows) -> npt.NDArray[np.int64]:
    """Encode each pair of rows (pairs, 2) as one integer: (pairs,)."""
    ids: npt.NDArray[np.int64] = (pairs[:, 0] << 32) | pairs[:, 1]
    return ids


def _correlation(name: str, prediction: Values, label: Values, rows: Rows) -> CorrelationScores:
    unit = "pairs" if rows.ndim == 2 else "rows"
    if len(rows) < 2:
        fix = "pass the labels of all test rows: --labels FILE"
        raise UserError(f"subset {name}: expected at least 2 {unit}, got {len(rows)}; fix: {fix}")
    measured = _subset_values(name, "label", label, rows)
    predicted = _subset_values(name, "prediction", prediction, rows)
    return score_correlations(predicted, measured)


def _subset_values(name: str, what: str, values: Values, rows: Rows) -> Values:
    """Select the values of rows (rows,), or compute the differences of pairs (pairs,)."""
    selected = values[rows]
    missing = rows[~np.isfinite(selected)]
    if len(missing):
        raise UserError(
            f"subset {name}: {len(missing):,} of its {rows.size:,} rows have no {what}, first row {missing[0]:,}; fix: "
            "labels and predictions of all rows; for the public leaderboard: --subsets public_leaderboard_ids"
        )
    return selected[:, 0] - selected[:, 1] if rows.ndim == 2 else selected
