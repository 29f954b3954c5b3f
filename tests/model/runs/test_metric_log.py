import errno
import json
import resource
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.runs.metric_log import Tracker
from model.runs.metrics_file import read_long_metrics, read_metrics
from pipeline.errors import UserError
from pipeline.io.atomic import fix_of_write_error
from tests.model.runs.trainer import PRODUCTS, KilledError, kill


def test_resume_removes_lines_of_later_steps(tmp_path):
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
    assert read_long_metrics(tmp_path / "metrics.jsonl")[0] == {
        "stage": "pretrain", "step": 10, "epoch": 1.0, "metric": "loss", "value": 10.0,
    }  # fmt: skip
    shown = {
        stage: EventAccumulator(str(tmp_path / "tensorboard" / stage)).Reload().Scalars(f"{stage}/loss")
        for stage in ("pretrain", "finetune")
    }
    assert {stage: [x.step for x in scalars] for stage, scalars in shown.items()} == {
        "pretrain": [10, 20, 30], "finetune": [10, 20],
    }  # fmt: skip


def test_events_are_flushed_at_once(tmp_path):
    with Tracker(tmp_path, is_rank0=True) as tracker:
        tracker.begin("pretrain", 0)
        tracker.log("pretrain", 5, 0.5, {"loss": 2.5})
        (scalar,) = EventAccumulator(str(tmp_path / "tensorboard" / "pretrain")).Reload().Scalars("pretrain/loss")
        assert (scalar.step, scalar.value) == (5, 2.5)


def test_a_removed_run_directory_is_named_with_the_right_fix(tmp_path):
    run = tmp_path / "demo"
    run.mkdir()
    tracker = Tracker(run, is_rank0=True)
    tracker.begin("pretrain", 0)
    shutil.rmtree(run)
    with pytest.raises(UserError, match=rf"^{run}: .*removed.*; fix: run the same command to start again$"):
        tracker.log("pretrain", 5, 0.5, {"loss": 2.5})


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (OSError(errno.ENOSPC, ""), "free disk space, then run"),
        (OSError(errno.EDQUOT, ""), "free disk space, then run"),
        (RuntimeError("PytorchStreamWriter failed"), "free disk space, then run"),
        (OSError(errno.EROFS, ""), "writable, then run"),
        (OSError(errno.EIO, ""), "check the disk"),
    ],
)
def test_only_a_full_disk_needs_space(tmp_path, error, fix):
    assert fix in fix_of_write_error(error, tmp_path)


@pytest.mark.parametrize("values", [{"a" * 90: 1.0}, {"a": 1 / 3, "b": 1 / 7}])
def test_failed_write_is_a_clear_error(tmp_path, capfd, values):
    """Files cannot exceed a size limit. The values decide which of the two files reaches it first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def log_much():
        with Tracker(tmp_path, is_rank0=True) as tracker:
            tracker.begin("pretrain", 0)
            for step in range(1, 100):
                tracker.log("pretrain", step, 0.0, values)

    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(UserError, match=r"metrics cannot be written \(File too large\).*last checkpoint is intact"):
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


def test_tensorboard_shows_each_step_once(trainer, empty, before_step):
    """Metrics are logged at step 20, before the first checkpoint, so the second start logs this step again."""

    override = "finetune.evaluate_every=1"
    before_step(25, kill)
    with pytest.raises(KilledError):
        trainer.train(override)
    before_step(0, kill)
    trainer.train(override)
    assert len(list((empty / "tensorboard" / "finetune").iterdir())) == 2
    for stage in PRODUCTS:
        shown = EventAccumulator(str(empty / "tensorboard" / stage)).Reload()
        lines = [line for line in read_metrics(empty / "metrics.jsonl") if line["stage"] == stage]
        for name in ("loss", "valid_loss", "learning_rate"):
            expected = [(line["step"], pytest.approx(line[name])) for line in lines if name in line]
            assert [(x.step, x.value) for x in shown.Scalars(f"{stage}/{name}")] == expected


def test_summary_and_last_line_have_the_logged_losses(finished):
    """The summary has the validation loss of the best step; each evaluation has a line of its own, in 120 columns."""
    summary = json.loads((finished / "summary.json").read_text())
    lines = [x for x in read_metrics(finished / "metrics.jsonl") if x["stage"] == "finetune"]
    valid = {x["step"]: x for x in lines if "valid_loss" in x}
    best = valid[summary["training"]["finetune"]["best_step"]]
    assert summary["scores"]["valid"]["loss"] == pytest.approx(best["valid_loss"], rel=1e-5)
    assert summary["units"]["loss"] == "squared error of standardised labels"
    messages = (finished.parents[1] / "stderr").read_text().splitlines()
    shown = [line for line in messages if line.startswith("finetune: valid")]
    expected = [(step, line["valid_pearson"]) for step, line in valid.items()]
    assert [line.split(", ")[0] for line in shown] == [
        f"finetune: valid Pearson {pearson:.4f} at step {step}" for step, pearson in expected
    ]
    assert shown[0].endswith("the best so far")
    (last,) = [line for line in messages if line.startswith("finetune") and "(100 %)" in line]
    assert f"loss {[x for x in lines if 'loss' in x][-1]['loss']:.4f}" in last
    assert max(map(len, messages)) <= 120
