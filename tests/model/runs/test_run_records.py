import os
import resource

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.runs.directory import long_metrics, open_run
from model.runs.metric_log import Tracker, read_metrics
from model.scoring.metrics import pearson, spearman
from pipeline.errors import UserError
from pipeline.shards.index import read_index
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
    with Tracker(tmp_path, is_rank0=True) as tracker:
        for stage in ("pretrain", "finetune"):
            tracker.begin(stage, 0)
            for step in (10, 20, 30):
                tracker.log(stage, step, step / 10, {"loss": step})
        with tracker.path.open("a") as file:
            file.write('{"stage": "finetune", "st')  # a kill in the middle of a line
        tracker.begin("finetune", 20)
    kept = [(line["stage"], line["step"]) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert kept == [("pretrain", 10), ("pretrain", 20), ("pretrain", 30), ("finetune", 10), ("finetune", 20)]
    assert long_metrics(tmp_path / "metrics.jsonl")[0] == {
        "stage": "pretrain", "step": 10, "epoch": 1.0, "metric": "loss", "value": 10.0,
    }  # fmt: skip
    shown = {
        stage: EventAccumulator(str(tmp_path / "tensorboard" / stage)).Reload().Scalars(f"{stage}/loss")
        for stage in ("pretrain", "finetune")
    }
    assert {stage: [x.step for x in scalars] for stage, scalars in shown.items()} == {
        "pretrain": [10, 20, 30], "finetune": [10, 20],
    }  # fmt: skip


def test_events_are_there_at_once(tmp_path):
    with Tracker(tmp_path, is_rank0=True) as tracker:
        tracker.begin("pretrain", 0)
        tracker.log("pretrain", 5, 0.5, {"loss": 2.5})
        (scalar,) = EventAccumulator(str(tmp_path / "tensorboard" / "pretrain")).Reload().Scalars("pretrain/loss")
        assert (scalar.step, scalar.value) == (5, 2.5)


@pytest.mark.parametrize("values", [{"a" * 90: 1.0}, {"a": 1 / 3, "b": 1 / 7}])
def test_numbers_that_cannot_be_written_are_a_clear_error(tmp_path, capfd, values):
    """Files may not grow past a limit; which of the two comes to it first is up to the numbers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def log_much():
        with Tracker(tmp_path, is_rank0=True) as tracker:
            tracker.begin("pretrain", 0)
            for step in range(1, 100):
                tracker.log("pretrain", step, 0.0, values)

    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(UserError, match=r"metrics cannot be written \(File too large\).*last checkpoint is whole"):
            log_much()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capfd.readouterr() == ("", "")
    assert read_metrics(tmp_path / "metrics.jsonl")


def test_other_ranks_write_nothing(tmp_path):
    with Tracker(tmp_path, is_rank0=False) as tracker:
        tracker.begin("pretrain", 0)
        tracker.log("pretrain", 1, 0.1, {"loss": 1.0})
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
