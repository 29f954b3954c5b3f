"""The tables of docs/results.md from numbers that are known."""

import json
import sys

from pipeline.config import load_config
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))

from quality_tables import cell, difference, tables
from quality_trials import trials

SEEDS = (0, 1, 2)


def one(study, variant, seed, pearson, size=8000, split="random", **more):
    return {"study": study, "variant": variant, "seed": seed, "size": size, "split": split, "rows": "yeast",
            "pearson": pearson, "spearman": pearson - 0.01, **more}  # fmt: skip


def test_means_ranges_and_paired_differences():
    assert cell({0: 0.5, 1: 0.75, 2: 0.625}) == ".625 (.500 to .750)"
    assert cell({}) == ""
    # Differences .01, .02, .03: mean .02, sd .01, half-width 4.3027 x .01 / sqrt 3.
    assert difference({0: 0.51, 1: 0.62, 2: 0.73}, {2: 0.7, 0: 0.5, 1: 0.6}) == "+.020 (-.005 to +.045)"
    assert difference({0: 0.5}, {0: 0.4, 1: 0.3}) == ""


def test_each_number_is_in_its_row():
    found = [one("sizes", "pretrained", seed, 0.7 + seed / 100) for seed in SEEDS]
    found += [one("sizes", "scratch", seed, 0.6 + seed / 100) for seed in SEEDS]
    found += [one("sizes", "ridge", 0, 0.8, split="grouped", size=1000)]
    found += [one("choices", "smooth-l1", seed, 0.71 + seed / 100) for seed in SEEDS]
    subsets = {"subsets": {"all": {"pearson": 0.5, "spearman": 0.4}}, "pearson_score": 0.3, "spearman_score": 0.2}
    found += [one("dream", "pretrained", 0, 0.55, size=None, public=subsets)]
    pearson, spearman, choices, dream = tables(json.loads(json.dumps(found)))
    assert "| random, 8,000 | .710 (.700 to .720) | .610 (.600 to .620) |  |  | +.100 (+.100 to +.100) |" in pearson
    assert "| grouped, 1,000 |  |  | .800 (.800 to .800) |  |  |" in pearson
    assert "| random, 8,000 | .700 (.690 to .710) |" in spearman
    assert "| smooth-l1 | .720 (.710 to .730) | +.010 (+.010 to +.010) |" in choices
    assert "held-out rows | .550 (.550 to .550) | .540 (.540 to .540) |" in dream
    assert "| public rows: all | .500 (.500 to .500) | .400 (.400 to .400) |" in dream


def test_a_trial_comes_after_the_one_that_it_starts_from():
    names = [trial.name for trial in trials()]
    assert len(set(names)) == len(names)
    for place, trial in enumerate(trials()):
        assert trial.start is None or trial.start in names[:place]


def test_settings_are_known():
    for trial in trials():
        if trial.method == "bert":
            load_config(ROOT / "bench" / "quality.yaml", [*trial.data, *trial.settings])
