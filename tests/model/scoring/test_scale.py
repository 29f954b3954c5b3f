"""Predictions that rank the rows well but are on another scale."""

import numpy as np
import pytest

from model.reporting.run_sections import scores_section
from model.runs.read import read_run, warn_of_scale
from model.scoring.scale import describe_scale_problem, find_scale_problem
from model.training.messages import describe_summary


@pytest.fixture(scope="module")
def label():
    return np.random.default_rng(0).normal(10, 3, 500)


@pytest.fixture(scope="module")
def fitted(label):
    """Predictions with Pearson about 0.7 and the best scale: sd = r x sd of the labels."""
    noisy = label + np.random.default_rng(1).normal(0, 3, 500)
    return np.polyval(np.polyfit(noisy, label, 1), noisy)


def rescale(fitted, label, factor, shift=0.0):
    return label.mean() + shift + factor * (fitted - fitted.mean())


@pytest.mark.parametrize(
    ("factor", "shift", "found"),
    [(1, 0, False), (0.32, 0, False), (0.27, 0, True), (0.001, 0, True), (1.68, 0, False), (1.75, 0, True),
     (1, 1.4, False), (1, 1.6, True)],
)  # fmt: skip
def test_both_sides_of_the_criterion(fitted, label, factor, shift, found):
    prediction = rescale(fitted, label, factor, shift)
    assert (find_scale_problem(prediction, label) is not None) == found


def test_low_correlation_is_no_problem_of_the_scale(label):
    assert find_scale_problem(np.random.default_rng(2).normal(10, 0.01, 500), label) is None
    assert find_scale_problem(np.full(500, 10.0), label) is None


def test_decomposition_of_r2(fitted, label):
    """Murphy's equation, with the numbers of the result."""
    found = find_scale_problem(rescale(fitted, label, 0.1, 2.0), label)
    scale = found["pearson"] - found["prediction_sd"] / found["label_sd"]
    shift = (found["prediction_mean"] - found["label_mean"]) / found["label_sd"]
    assert found["r2"] == pytest.approx(found["pearson"] ** 2 - scale**2 - shift**2)


def test_description_names_the_cause_with_its_numbers(fitted, label):
    for factor, shift, cause in ((0.01, 0, "nearly constant"), (3, 0, "vary too much"), (1, 5, "level not learned")):
        found = find_scale_problem(rescale(fitted, label, factor, shift), label)
        text = describe_scale_problem(found)
        assert cause in text
        assert f"R2 {found['r2']:.3f}" in text
    assert warn_of_scale({"scale_problems": {"": found}}) == [text]
    assert warn_of_scale({"scale_problems": {"dev": found}}) == [f"dev: {text}"]
    assert warn_of_scale({"pearson": 0.5}) == []


def test_summary_and_report_warn(finished_run, label, fitted):
    run = read_run(finished_run)
    assert "Warning" not in str(scores_section(run, None))
    problem = find_scale_problem(rescale(fitted, label, 0.01), label)
    run.summary["scores"]["test"]["scale_problems"] = {"": problem}
    assert "Warning, test split: predictions nearly constant, scale not learned: R2 " in str(scores_section(run, None))
    (line,) = [line for line in describe_summary(run.summary).splitlines() if line.startswith("warning")]
    assert describe_scale_problem(problem) in line
