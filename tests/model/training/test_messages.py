"""Messages of a training before it begins."""

import random
import re

import pytest
import torch

from model.distributed.process_group import World
from model.training.messages import (
    describe_load,
    describe_rate,
    describe_summary,
    find_constant_labels,
    warn_long_training,
)
from model.training.prepare import TrainingRun
from pipeline.dataset.build import build_dataset
from pipeline.shards.index import read_index
from pipeline.shards.write import write_shards
from tests.conftest import small_config
from tests.pipeline.dataset.toy_dataset import L, R, write


def test_constant_labels_are_recognised_in_the_index(tmp_path):
    bases = random.Random(0)
    inserts = ["".join(bases.choices("ACGT", k=30)) for _ in range(60)]
    for name, labels in (("constant", [1.5] * 60), ("varied", [1.5] * 30 + [2.5] * 30)):
        rows = "".join(f"{L}{insert}{R}\t{label}\n" for insert, label in zip(inserts, labels, strict=True))
        config = small_config(tmp_path / name)
        build_dataset([write(tmp_path / f"{name}.tsv", rows)], config)
        written = write_shards(config)
        assert bool(find_constant_labels(read_index(written.folder))) == (name == "constant")


@pytest.mark.parametrize(("epochs", "device", "warned"), [(1, "cpu", False), (400, "cpu", True), (400, "cuda", False)])
def test_training_of_hours_on_a_cpu_is_announced(made, epochs, device, warned):
    """At 10^7 operations per second. Half the rate takes twice the time."""
    config = small_config(made.rows.parent, f"finetune.max_epochs={epochs}")
    world = World(0, 1, torch.device(device))
    run = TrainingRun(made.shards, read_index(made.shards), world, 0, None, config, None)
    text = warn_long_training(run, "finetune", 1e7)
    assert bool(text) == warned
    if warned:
        assert max(map(len, text.splitlines())) <= 120
        hours = [
            float(re.search(r"about (\d+\.\d) h on this CPU in total", warn_long_training(run, "finetune", rate))[1])
            for rate in (2e7, 1e7)
        ]
        assert hours[1] == pytest.approx(2 * hours[0], abs=0.2)


def test_matmul_rate_is_shown_beside_the_nominal_rate():
    assert "700 TFLOP/s" in describe_rate(7e14, None)
    assert "71% of the nominal 989" in describe_rate(7e14, 989e12)


@pytest.mark.parametrize(
    ("threads", "load", "noted"), [(2, 3.9, False), (2, 4.0, True), (2, 9.0, True), (1, 9.0, False)]
)
def test_other_programs_on_the_cores_are_noted(threads, load, noted):
    assert bool(describe_load(threads, 2, load)) == noted


@pytest.mark.parametrize(
    ("best_step", "schedule", "suggested"), [(9, "plateau", True), (8, "plateau", False), (9, "onecycle", False)]
)
def test_more_epochs_are_suggested_if_the_last_step_is_the_best(best_step, schedule, suggested):
    stage = {"best": 0.5, "best_step": best_step, "steps": 9, "seconds": 1.0}
    text = describe_summary({"config": {"finetune": {"schedule": schedule}}, "training": {"finetune": stage}})
    assert ("finetune.max_epochs" in text) == suggested
    assert "max_epochs" not in describe_summary({"training": {"finetune": stage}})  # as of pretraining alone


@pytest.mark.parametrize("both", [True, False])
def test_a_model_of_both_strands_names_the_option_that_reads_them(both):
    config = {"assay": {}, "finetune": {"reverse_complement": both}}
    score = {"pearson": 0.5, "spearman": 0.4, "r2": 0.2, "mse": 1.0, "rows": 9}
    assert ("--both-strands" in describe_summary({"config": config, "scores": {"test": score}})) == both
