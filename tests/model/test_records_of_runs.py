import os

import numpy as np
import pytest

from model.metrics import pearson, spearman
from model.runs import long_metrics, open_run
from model.tracking import Tracker, read_metrics
from pipeline.errors import UserError
from pipeline.index import read_index
from tests.conftest import small_config


def test_correlations_by_hand():
    x = np.array([1.0, 2, 3, 4])
    assert pearson(x, 2 * x + 1) == pytest.approx(1)
    assert pearson(x, -x) == pytest.approx(-1)
    assert pearson(x, np.array([1.0, 3, 2, 4])) == pytest.approx(0.8)
    assert spearman(x, np.array([1.0, 3, 2, 400])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 1, 2]), np.array([5.0, 5, 7])) == pytest.approx(1)
    constant = np.ones(4)
    assert pearson(x, constant) == spearman(constant, x) == pearson(x[:1], x[:1]) == 0


def test_a_resume_writes_over_what_came_after_its_checkpoint(tmp_path):
    with Tracker(tmp_path, leads=True) as tracker:
        for stage in ("pretrain", "finetune"):
            for step in (10, 20, 30):
                tracker.log(stage, step, step / 10, {"loss": step})
        with tracker.path.open("a") as file:
            file.write('{"stage": "finetune", "st')  # a kill in the middle of a line
        tracker.forget_after("finetune", 20)
    kept = [(line["stage"], line["step"]) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert kept == [("pretrain", 10), ("pretrain", 20), ("pretrain", 30), ("finetune", 10), ("finetune", 20)]
    assert long_metrics(tmp_path / "metrics.jsonl")[0] == {
        "stage": "pretrain", "step": 10, "epoch": 1.0, "metric": "loss", "value": 10.0,
    }  # fmt: skip
    assert list((tmp_path / "tensorboard").iterdir())


def test_other_ranks_write_nothing(tmp_path):
    with Tracker(tmp_path, leads=False) as tracker:
        tracker.log("pretrain", 1, 0.1, {"loss": 1.0})
        tracker.forget_after("pretrain", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_only_with_its_own_configuration_and_shards(made, tmp_path):
    from dataclasses import replace

    index = read_index(made.shards)
    config = small_config(tmp_path)
    lock = open_run(config, index, {})
    with pytest.raises(UserError, match=rf"process {os.getpid()} is training in"):
        open_run(config, index, {})
    lock.close()
    open_run(small_config(tmp_path, "finetune.max_epochs=9", "run.keep_checkpoints=1"), index, {}).close()
    with pytest.raises(UserError, match=r"pretrain.learning_rate: 0.001 -> 0.002"):
        open_run(small_config(tmp_path, "pretrain.learning_rate=2e-3"), index, {})
    with pytest.raises(UserError, match="other shards"):
        open_run(config, replace(index, key="another"), {})
    assert (config.run.directory / "config.yaml").exists()
