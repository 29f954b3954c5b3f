"""The score of the DREAM Challenge 2022 (random promoters in yeast): nine correlations, weighted.

    Pearson Score  = sum of w r^2  / sum of w
    Spearman Score = sum of w rho  / sum of w        (not squared)

r and rho are those of predicted and measured expression over the rows of a subset; for SNVs, motif perturbation and
motif tiling over its pairs, of the differences (changed less original promoter) of either. The final score leaves out
what the public leaderboard had shown: its rows from the subsets of rows, its pairs from the subsets of pairs. A pair of
which one row was public stays in. Rows and pairs count once however often a subset file names them.

Source: Rafi et al., A community effort to optimize sequence-based deep learning models of gene regulation, Nature
Biotechnology 2024 (doi 10.1038/s41587-024-02414-w); data and subset files: Zenodo 10633252.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.scoring.bootstrap import Interval, correlation_intervals
from model.scoring.metrics import pearson, spearman
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
PAIRED = ("SNVs", "motif_perturbation", "motif_tiling")
"""The subsets of pairs."""

Rows = npt.NDArray[np.int64]
"""Numbers of rows of the test file, from 0: (rows,), or (pairs, 2) of the changed and the original promoter."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Of one subset. rows: rows or pairs; the intervals hold 95 %."""

    rows: int
    pearson: float
    spearman: float
    pearson_interval: Interval
    spearman_interval: Interval


@dataclass(frozen=True)
class ChallengeScore:
    """The subsets' correlations by name, in the order of WEIGHTS, and both scores: None where a subset is missing."""

    subsets: dict[str, Correlation]
    pearson_score: float | None
    spearman_score: float | None
    missing: list[str]


def challenge_score(prediction: Values, label: Values, subsets: Mapping[str, Rows]) -> ChallengeScore:
    """Score predictions (rows,) beside labels (rows,), both by row number; NaN where there is none.

    subsets: rows or pairs by name, `all` among them. Raises UserError for a subset with fewer than two rows, and for
    one that needs a row without label or prediction.
    """
    found = {name: _correlation(name, prediction, label, subsets[name]) for name in WEIGHTS if name in subsets}
    missing = [name for name in WEIGHTS if name not in subsets]
    if missing:
        return ChallengeScore(found, None, None, missing)
    return ChallengeScore(
        found,
        weighted_mean({name: part.pearson**2 for name, part in found.items()}),
        weighted_mean({name: part.spearman for name, part in found.items()}),
        [],
    )


def weighted_mean(parts: Mapping[str, float]) -> float:
    """The nine parts by the challenge's weights."""
    return sum(weight * parts[name] for name, weight in WEIGHTS.items()) / sum(WEIGHTS.values())


def final_subsets(subsets: Mapping[str, Rows], public: Mapping[str, Rows]) -> dict[str, Rows]:
    """The subsets without what the public leaderboard had shown."""
    public_rows = np.unique(np.concatenate([rows.ravel() for rows in public.values()]))
    pairs = [public[name] for name in PAIRED if name in public]
    public_pairs = _as_one(np.concatenate(pairs)) if pairs else np.empty(0, np.int64)
    return {
        name: rows[~np.isin(_as_one(rows), public_pairs)] if rows.ndim == 2 else rows[~np.isin(rows, public_rows)]
        for name, rows in subsets.items()
    }


def _as_one(pairs: Rows) -> npt.NDArray[np.int64]:
    """One number a pair: (pairs,)."""
    combined: npt.NDArray[np.int64] = (pairs[:, 0] << 32) | pairs[:, 1]
    return combined


def _correlation(name: str, prediction: Values, label: Values, rows: Rows) -> Correlation:
    unit = "pairs" if rows.ndim == 2 else "rows"
    if len(rows) < 2:
        raise UserError(f"subset {name}: expected at least 2 {unit}, got {len(rows)}; give labels of all test rows")
    sides = []
    for what, values in (("label", label), ("prediction", prediction)):
        taken = values[rows]
        lacking = rows[~np.isfinite(taken)]
        if len(lacking):
            raise UserError(
                f"subset {name}: {len(lacking):,} of its {rows.size:,} rows have no {what}, first row {lacking[0]:,}; "
                "for the rows of the public leaderboard give its own files: --subsets public_leaderboard_ids"
            )
        sides.append(taken[:, 0] - taken[:, 1] if rows.ndim == 2 else taken)
    measured, predicted = sides
    intervals = correlation_intervals(predicted, measured)
    return Correlation(
        len(rows),
        pearson(predicted, measured),
        spearman(predicted, measured),
        intervals["pearson"],
        intervals["spearman"],
    )
