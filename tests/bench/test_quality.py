"""Study of docs/results.md: order and repetition of trials, and tables of known numbers."""

import json
import sys
from dataclasses import replace
from functools import partial

import pytest

from bench.parallel import run_parallel
from bench.quality.study import Studio, config_of
from bench.quality.tables import cell, difference, number, tables
from bench.quality.trials import trials
from model.config import load_config

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


def test_tables_hold_each_number_in_its_row():
    results = [one("sizes", "pretrained", seed, 0.7 + seed / 100) for seed in SEEDS]
    results += [one("sizes", "scratch", seed, 0.6 + seed / 100) for seed in SEEDS]
    results += [one("sizes", "ridge", 0, 0.8, split="grouped", size=1000)]
    results += [one("choices", "smooth-l1", seed, 0.71 + seed / 100) for seed in SEEDS]
    subsets = {"subsets": {"all": {"pearson": 0.5, "spearman": 0.4}}, "pearson_score": 0.3, "spearman_score": 0.2}
    results += [one("dream", "pretrained", 0, 0.55, size=None, public=subsets)]
    pearson, spearman, choices, dream = tables(json.loads(json.dumps(results)))
    assert "| random, 8,000 | .710 (.700 to .720) | .610 (.600 to .620) |  |  | +.100 (+.100 to +.100) |" in pearson
    assert "| grouped, 1,000 |  |  | .800 (.800 to .800) |  |  |" in pearson
    assert "| random, 8,000 | .700 (.690 to .710) |" in spearman
    assert "| 8,000: smooth-l1 | .720 (.710 to .730) | +.010 (+.010 to +.010) |" in choices
    assert "held-out rows | .550 (.550 to .550) | .540 (.540 to .540) |" in dream
    assert "| BERT, pretrained: public rows, all | .500 (.500 to .500) | .400 (.400 to .400) |" in dream


def test_single_settings_are_compared_with_the_preset_on_the_same_seeds():
    results = [one("presets", "small", seed, 0.8 + seed / 100) for seed in SEEDS]
    results += [one("presets", "small", 0, 0.9, split="grouped"), one("presets", "small", 0, 0.9, size=1000)]
    results += [one("ablations", "small-plateau", seed, 0.79 + seed / 100) for seed in SEEDS]
    table = next(each for each in tables(results) if "change of short training" in each)
    assert "| none | .810 (.800 to .820) |  |" in table
    assert "| `finetune.schedule=plateau` | .800 (.790 to .810) | -.010 (-.010 to -.010) |" in table
    assert "cosine" not in table


def test_long_trainings_are_compared_on_their_seeds():
    results = [one("presets", "small", seed, 0.8 + seed / 100) for seed in SEEDS]
    results += [one("presets", "cnn-flank-6", seed, 0.79 + seed / 100) for seed in SEEDS]
    results += [one("presets", "small-long", seed, 0.83 + seed / 100) for seed in (1, 2)]
    results += [one("presets", "cnn-long", seed, 0.81 + seed / 50) for seed in (1, 2)]
    pearson, spearman = (each for each in tables(results) if "long minus short" in each)
    cells = ".845 (.840 to .850) | .840 (.830 to .850) | .815 (.810 to .820) | .805 (.800 to .810)"
    gains = "+.030 (+.030 to +.030) | +.005 (-.059 to +.069)"
    assert pearson.splitlines()[2:] == [f"| random, 8,000 | 2 | {cells} | {gains} |"]
    assert "| .835 (.830 to .840) |" in spearman


def test_trainings_on_both_strands_are_compared_by_strands():
    results = [
        one("presets", "small-muon", seed, 0.85 + seed / 100, both_pearson=0.87, both_spearman=0.86) for seed in (0, 1)
    ]
    results += [
        one("presets", "small-muon", seed, 0.89, split="grouped", both_pearson=0.9, both_spearman=0.9) for seed in SEEDS
    ]
    results += [one("presets", "small-two-strands", 1, 0.8, both_pearson=0.81, both_spearman=0.82)]
    results += [
        one("presets", "cnn-two-strands", seed, 0.84 + seed / 100, both_pearson=0.85, both_spearman=0.83)
        for seed in SEEDS
    ]
    results += [one("presets", "cnn-muon", seed, 0.86, both_pearson=0.9, both_spearman=0.83) for seed in (1, 2)]
    each = {each.partition(":")[0]: each.splitlines()[2:] for each in tables(results) if "minus CNN" in each}
    gain = ".855 (.850 to .860) | .860 (.860 to .860) |  | .845 (.840 to .850) | +.010 (+.010 to +.010)"
    grouped, both = "| grouped, 8,000 | 3 | .890 (.890 to .890) |  |  |  |  |  |", ".876 (.850 to .890)"
    random, *others = each["| Pearson, one strand"]
    assert random == f"| random, 8,000 | 2 | {gain} | .800 (.800 to .800) |"
    assert others[0] == grouped
    assert others[1] == f"| all, 8,000 | 5 | {both} |  |  |  |  |  |"  # no other method ran on grouped splits
    gain = ".870 (.870 to .870) | .900 (.900 to .900) |  | .850 (.850 to .850) | +.020 (+.020 to +.020)"
    assert each["| Pearson, both strands"][0] == f"| random, 8,000 | 2 | {gain} | .810 (.810 to .810) |"
    assert "| +.030 (+.030 to +.030) |" in each["| Spearman, both strands"][0]


def test_splits_without_shared_runs_have_a_table_of_their_own():
    levels = {"ridge": 0.78, "small": 0.82, "small-two-strands": 0.84, "cnn-flank-6": 0.8, "cnn-long": 0.83}
    results = [one("overlap", f"{name}-overlap", 0, level, split="grouped") for name, level in levels.items()]
    table = next(each for each in tables(results) if "no shared runs" in each)
    cells = [f"{number(level)} ({number(level)} to {number(level)})" for level in levels.values()]
    ridge, short, strands, cnn, cnn_long = cells
    assert table.splitlines()[2:] == [f"| 8,000 | {ridge} | {short} | {strands} | {cnn} | {cnn_long} |"]


def test_gain_by_pretraining_on_spans_uses_the_seeds_of_both():
    results = [one("presets", "small-muon", seed, 0.8 + seed / 100) for seed in SEEDS]
    results += [one("spans", "small-muon-pretrained", seed, 0.81 + seed / 100) for seed in (1, 2)]
    table = next(each for each in tables(results) if "pretrained on spans" in each)
    row = "| random, 8,000 | .825 (.820 to .830) | .815 (.810 to .820) | +.010 (+.010 to +.010) |"
    assert table.splitlines()[2:] == [row]


def test_single_settings_differ_from_the_preset_in_one_value():
    preset = {trial.seed: trial.settings for trial in trials() if trial.name.endswith("-8000-small")}
    changed = [trial for trial in trials() if trial.study == "ablations"]
    assert len(changed) >= 3 * 8
    for trial in changed:
        assert len(set(trial.settings) - set(preset[trial.seed])) == 1
        assert load_config(config_of(trial), trial.settings) != load_config(config_of(trial), preset[trial.seed])


def test_trials_follow_the_trials_they_start_from():
    names = [trial.name for trial in trials()]
    assert len(set(names)) == len(names)
    for place, trial in enumerate(trials()):
        assert trial.start is None or trial.start in names[:place]


def test_settings_are_valid_and_pretrained_models_fit():
    config = {
        trial.name: load_config(config_of(trial), [*trial.data, *trial.settings])
        for trial in trials()
        if trial.method == "bert"
    }
    for trial in trials():
        if trial.start:
            start, own = config[trial.start], config[trial.name]
            same = {"compile": own.model.compile, "dropout": own.model.dropout}  # these change no weights
            model = start.model.model_copy(update=same)
            assert (model, start.assay, start.shards.k) == (own.model, own.assay, own.shards.k)
            assert start.finetune.tokens == own.finetune.tokens


def test_trials_run_again_after_a_change_of_settings_or_rows(tmp_path):
    calls = []

    class Counting(Studio):
        def places(self, trial):
            return []

        def run(self, trial, data):
            calls.append(trial)
            return {"pearson": len(calls)}

    rows = tmp_path / "yeast.tsv"
    rows.write_text("ACGT\t1\n")
    studio = Counting({"yeast": rows}, tmp_path / "work", None, None)
    trial = next(trial for trial in trials() if trial.study == "sizes")
    changed = replace(trial, settings=(*trial.settings, "finetune.max_epochs=7"))
    for each in (trial, trial, changed, changed):
        studio.result(each)
    assert calls == [trial, changed]
    assert json.loads(studio.path(trial).read_text())["pearson"] == 2
    rows.write_text("ACGT\t1\nACCT\t1\n")
    studio.result(changed)
    assert len(calls) == 3


def test_no_task_starts_after_a_failure():
    calls = []

    def task(name):
        calls.append(name)
        if name == "b":
            sys.exit("b: status 1")

    with pytest.raises(SystemExit, match="b: status 1"):
        run_parallel(1, {name: partial(task, name) for name in "abcd"})
    assert calls == ["a", "b"]
