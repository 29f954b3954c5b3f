"""Scores of two columns of values: intervals of all four scores against resampling by hand."""

import numpy as np
import pytest

from model.scoring.bootstrap import correlation_intervals, regression_intervals
from model.scoring.metrics import regression_scores
from model.scoring.scores import MOST_DRAWS, score_correlations, score_regression


def values(rows, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.round(rng.normal(3, 2, rows), 1)  # with ties
    return (0.5 * labels + rng.normal(size=rows)).astype(np.float32), labels


def test_intervals_are_the_quantiles_of_scores_of_resamples():
    prediction, label = values(60)
    order = np.argsort(prediction, kind="stable")
    rng, scores = np.random.default_rng(3), []
    for _ in range(200):
        rows = order[rng.integers(60, size=60)]
        scores.append(regression_scores(prediction[rows], label[rows]))
    intervals = regression_intervals(prediction, label, resamples=200, seed=3)
    for name, interval in intervals.items():
        assert interval == pytest.approx(np.quantile([score[name] for score in scores], [0.025, 0.975]), abs=1e-6)
    both = correlation_intervals(prediction, label, resamples=200, seed=3)
    assert both == {name: intervals[name] for name in ("pearson", "spearman")}


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows_and_constant_labels_have_finite_scores(rows):
    result = score_regression(np.arange(rows, dtype=np.float32), np.ones(rows))
    assert (result.rows, result.pearson, result.r2, result.r2_interval) == (rows, 0.0, 0.0, (0.0, 0.0))
    assert np.isfinite([*result.pearson_interval, *result.mse_interval]).all()


def test_rows_without_a_value_are_left_out():
    prediction, label = values(50)
    prediction[3], label[7], label[8] = np.nan, np.nan, np.inf
    kept = np.delete(np.arange(50), [3, 7, 8])
    assert score_regression(prediction, label) == score_regression(prediction[kept], label[kept])
    assert score_correlations(prediction, label).rows == 47


def test_very_many_rows_take_fewer_resamples(monkeypatch):
    taken = []
    monkeypatch.setattr(
        "model.scoring.scores.correlation_intervals",
        lambda _x, _y, resamples: taken.append(resamples) or {"pearson": (0.0, 0.0), "spearman": (0.0, 0.0)},
    )
    for rows in (10, MOST_DRAWS // 500):
        score_correlations(np.zeros(rows), np.zeros(rows))
    assert taken == [1000, 500]


def test_one_row_has_no_scores():
    """A correlation of 0 or an error of 0 would be a claim."""
    for rows in (0, 1):
        assert score_regression(np.ones(rows), np.zeros(rows)).cells() == ["-"] * 4
    pearson, _, mse, _ = score_regression(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])).cells()
    assert pearson.startswith("1.0000 (")
    assert mse.startswith("0.0000 (")
