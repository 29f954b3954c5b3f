"""Correlations, errors and intervals of predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from model.scoring.bootstrap import _correlation, _moments, _ranks, _ratio, _tie_groups, correlation_intervals
from model.scoring.metrics import base_perplexity, mse, pearson, r2, regression_scores, scores_of_labels, spearman

LABELS = np.array([1.0, 2, 3, 4])


def test_errors_by_hand():
    assert mse(np.array([1.0, 2, 3, 6]), LABELS) == 1
    assert r2(np.array([1.0, 2, 3, 6]), LABELS) == pytest.approx(1 - 4 / 5)
    assert r2(LABELS, LABELS) == 1
    assert r2(np.full(4, 2.5), LABELS) == 0
    assert r2(np.full(4, 9.0), LABELS) < 0
    assert r2(LABELS, np.ones(4)) == 0  # undefined
    assert mse(np.empty(0), np.empty(0)) == r2(np.empty(0), np.empty(0)) == 0


def test_scores_of_labels_use_present_values_and_leave_out_labels_without_any():
    draws = np.random.default_rng(0)
    prediction, label = draws.normal(size=(2, 50, 3)).astype(np.float32)
    label[::3, 0] = label[:, 2] = np.nan
    scores = scores_of_labels(prediction, label, ["a", "b", "c"])
    present = np.arange(50) % 3 > 0
    each = {"a": regression_scores(prediction[present, 0], label[present, 0]),
            "b": regression_scores(prediction[:, 1], label[:, 1])}  # fmt: skip
    expected = {f"{metric}/{name}": value for name, values in each.items() for metric, value in values.items()}
    expected |= {metric: (each["a"][metric] + each["b"][metric]) / 2 for metric in each["a"]}
    assert scores == pytest.approx(expected)
    assert set(scores_of_labels(prediction, np.full_like(label, np.nan), ["a", "b", "c"]).values()) == {0.0}


def test_float32_input_keeps_precision():
    draws = np.random.default_rng(0)
    label = draws.normal(11, 2, 5000)
    prediction = label + draws.normal(0, 2, 5000)
    single = regression_scores(prediction.astype(np.float32), label.astype(np.float32))
    assert single == pytest.approx(regression_scores(prediction, label), rel=1e-6)
    slope = stats.linregress(prediction, label)
    fitted = slope.intercept + slope.slope * prediction
    assert r2(fitted, label) == pytest.approx(single["pearson"] ** 2, rel=1e-5)  # the highest possible R2


def test_perplexity_per_base_of_uniform_bases_is_four():
    for k in (1, 3, 6):
        assert base_perplexity(k * np.log(4), k) == pytest.approx(4)
    assert base_perplexity(0.0, 3) == 1
    assert np.isfinite(base_perplexity(1e9, 3))


values = st.lists(st.sampled_from([-2.0, 0.0, 0.5, 1.0, 7.0]), min_size=2, max_size=30)


@settings(deadline=None, max_examples=200)
@given(values, st.data())
def test_correlations_from_counts_equal_those_of_the_resample(x, data):
    """Compared with scipy, which ranks the sampled rows; most resamples have ties."""
    rows = len(x)
    y = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 2.5]), min_size=rows, max_size=rows)))
    x = np.array(x)
    sample = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=rows, max_size=rows)))
    counts = np.bincount(sample, minlength=rows)
    ranks_x, ranks_y = _ranks(_tie_groups(x), counts), _ranks(_tie_groups(y), counts)
    middle = (rows + 1) / 2
    assert ranks_x[sample] + middle == pytest.approx(stats.rankdata(x[sample]))
    assert ranks_y[sample] + middle == pytest.approx(stats.rankdata(y[sample]))
    r = _correlation(counts @ _moments(x, y) / rows)
    rho = _ratio(counts @ (ranks_x * ranks_y), counts @ ranks_x**2, counts @ ranks_y**2)
    if np.ptp(x[sample]) == 0 or np.ptp(y[sample]) == 0:
        assert np.isnan(r)
        assert np.isnan(rho)
    else:
        assert r == pytest.approx(stats.pearsonr(x[sample], y[sample]).statistic, abs=1e-9)
        assert rho == pytest.approx(stats.spearmanr(x[sample], y[sample]).statistic, abs=1e-9)


def test_intervals_agree_with_scipy_bootstrap():
    """Two independent sets of 4,000 resamples: ends agree within their own noise."""
    draws = np.random.default_rng(1)
    y = np.round(draws.normal(11, 2, 300))
    x = (0.7 * y + draws.normal(0, 2, 300)).astype(np.float32)
    ours = correlation_intervals(x, y, resamples=4000, seed=3)

    def rank_correlation(a, b, axis):
        return stats.pearsonr(stats.rankdata(a, axis=axis), stats.rankdata(b, axis=axis), axis=axis).statistic

    for name, statistic in (("pearson", lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic),
                            ("spearman", rank_correlation)):  # fmt: skip
        theirs = stats.bootstrap(
            (x.astype(float), y), statistic, paired=True, vectorized=True, n_resamples=4000, method="percentile",
            rng=np.random.default_rng(4),
        ).confidence_interval  # fmt: skip
        assert ours[name] == pytest.approx(tuple(theirs), abs=0.006)


def test_coverage_of_intervals():
    """120 samples of 200 rows with r = 0.6: 114 +- 2.4 are expected."""
    draws = np.random.default_rng(5)
    held = 0
    for _ in range(120):
        x = draws.normal(size=200)
        low, high = correlation_intervals(x, 0.6 * x + 0.8 * draws.normal(size=200), resamples=100)["pearson"]
        held += low <= 0.6 <= high
    assert 103 <= held <= 119


def test_intervals_are_reproducible_and_ignore_scale_and_shift():
    draws = np.random.default_rng(2)
    x, y = draws.normal(size=(2, 100))
    intervals = correlation_intervals(x, y)
    assert intervals == correlation_intervals(x, y)
    assert intervals != correlation_intervals(x, y, seed=1)
    shifted = correlation_intervals(1e3 * x + 1e6, y)
    assert shifted["spearman"] == intervals["spearman"]
    assert shifted["pearson"] == pytest.approx(intervals["pearson"], abs=1e-6)


def test_intervals_of_constants_and_single_rows():
    constant, rising = np.ones(5), np.arange(5.0)
    assert correlation_intervals(constant, rising) == {"pearson": (0, 0), "spearman": (0, 0)}
    assert correlation_intervals(rising[:1], rising[:1]) == {"pearson": (0, 0), "spearman": (0, 0)}
    assert correlation_intervals(rising, 2 * rising)["pearson"] == pytest.approx((1, 1))


def test_correlations_by_hand():
    x = np.array([1.0, 2, 3, 4])
    assert pearson(x, 2 * x + 1) == pytest.approx(1)
    assert pearson(x, -x) == pytest.approx(-1)
    assert pearson(x, np.array([1.0, 3, 2, 4])) == pytest.approx(0.8)
    assert spearman(x, np.array([1.0, 3, 2, 400])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 1, 2]), np.array([5.0, 5, 7])) == pytest.approx(1)
    constant = np.ones(4)
    assert pearson(x, constant) == spearman(constant, x) == pearson(x[:1], x[:1]) == 0
