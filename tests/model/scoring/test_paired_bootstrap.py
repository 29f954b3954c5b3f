"""Paired bootstrap of the difference of two correlations."""

import numpy as np
import pytest

from model.scoring.metrics import pearson, spearman
from model.scoring.paired_bootstrap import compare_correlations


def draw(rows, effect, seed):
    """Draw labels, and two predictions that share their noise; the second has noise of its own of size `effect`."""
    rng = np.random.default_rng(seed)
    label = np.round(rng.normal(size=rows), 1)  # with ties
    first = label + rng.normal(size=rows)
    return first, first + effect * rng.normal(size=rows), label


def test_interval_and_p_are_those_of_resampling_by_hand():
    first, second, label = draw(80, 0.5, 0)
    result = compare_correlations(first, second, label, resamples=200, seed=3)
    rng, differences = np.random.default_rng(3), []
    for _ in range(200):
        rows = rng.integers(80, size=80)
        x, other, y = first[rows], second[rows], label[rows]
        differences.append((pearson(x, y) - pearson(other, y), spearman(x, y) - spearman(other, y)))
    for got, drawn, score in zip(
        (result.pearson, result.spearman), np.array(differences).T, (pearson, spearman), strict=True
    ):
        assert got.value == pytest.approx(score(first, label) - score(second, label))
        assert got.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-6)
        assert got.p_value == pytest.approx(min(1, 2 * (min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1) / 201))
    assert (result.rows, result.resamples, result.smallest_p) == (80, 200, 2 / 201)


def test_a_paired_test_finds_a_difference_that_the_intervals_hide():
    from model.scoring.bootstrap import correlation_intervals

    first, second, label = draw(2000, 0.2, 1)
    result = compare_correlations(first, second, label, resamples=200)
    assert result.pearson.p_value == result.smallest_p
    assert result.pearson.interval[0] > 0
    low, _ = correlation_intervals(first, label, 200)["pearson"]
    _, high = correlation_intervals(second, label, 200)["pearson"]
    assert low < high  # the intervals of the two scores overlap


def test_equal_models_are_rarely_different():
    """Under the null hypothesis, 5 % of the p-values are at most .05."""
    rng, values = np.random.default_rng(2), []
    for _ in range(100):
        label = rng.normal(size=100)
        first, second = (label + rng.normal(size=100) for _ in range(2))
        values.append(compare_correlations(first, second, label, resamples=100).pearson.p_value)
    assert np.mean(np.array(values) <= 0.05) < 0.12
    assert 0.35 < np.mean(values) < 0.65


def test_signs_missing_values_and_degenerate_rows():
    first, second, label = draw(60, 1.0, 4)
    one, other = (compare_correlations(*pair, label, 50) for pair in ((first, second), (second, first)))
    assert one.pearson.value == -other.pearson.value
    assert one.pearson.interval == pytest.approx([-end for end in reversed(other.pearson.interval)])
    assert one.pearson.p_value == other.pearson.p_value
    holes = first.copy()
    holes[[2, 5]] = np.nan
    kept = np.delete(np.arange(60), [2, 5])
    assert compare_correlations(holes, second, label, 50) == compare_correlations(
        first[kept], second[kept], label[kept], 50
    )
    for same in (
        compare_correlations(first, first, label, 50),
        compare_correlations(first[:1], first[:1], label[:1], 50),
    ):
        assert (same.pearson.value, same.pearson.interval, same.pearson.p_value) == (0, (0, 0), 1)


def test_constant_predictions_have_a_correlation_of_0():
    """The test of a model that predicts one value is that of the other model's correlation."""
    from model.scoring.bootstrap import correlation_intervals

    first, _, label = draw(60, 1.0, 5)
    order = np.argsort(first)  # correlation_intervals draws from the rows in this order
    first, label = first[order], label[order]
    result = compare_correlations(first, np.full(60, 9.0), label, 100)
    for name, got in (("pearson", result.pearson), ("spearman", result.spearman)):
        assert got.interval == pytest.approx(correlation_intervals(first, label, 100)[name])
        assert got.interval[0] < got.value < got.interval[1]
        assert got.p_value == result.smallest_p
