from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.distributed.process_group import World
from model.training import throughput
from model.training.checkpointing.checkpoints import StageState
from pipeline.errors import UserError

COST = SimpleNamespace(mask_share=0.15, count=lambda lengths: (float(lengths.sum()), 1000.0 * len(lengths)))
"""One token per base, 1,000 operations per promoter."""


@pytest.fixture
def meter(monkeypatch):
    """A meter on one rank, with a clock that the test sets (`now`) and a list of log entries (`logged`)."""
    setup = SimpleNamespace(now=100.0, logged=[])
    monkeypatch.setattr(throughput, "sum_over_ranks", lambda *sums: [float(value) for value in sums])
    monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: setup.now))
    engine = SimpleNamespace(
        stage="pretrain", world=World(0, 1, torch.device("cpu")), rate=SimpleNamespace(current=0.001), skipped_steps=2,
        loss_scale=None,
    )  # fmt: skip
    stream = SimpleNamespace(rows=400)
    tracker = SimpleNamespace(log=lambda *entry: setup.logged.append(entry))
    setup.meter = throughput.Meter(engine, stream, tracker, COST, matmul_rate=50_000.0)
    return setup


def step(rows, length):
    batch = SimpleNamespace(global_rows=rows, global_lengths=np.full(rows, length))
    return SimpleNamespace(micro_batches=[batch, batch])


def test_reading_is_the_mean_over_the_steps_since_the_last_one(meter):
    state = StageState(step=10, epoch=1, consumed=100, seconds=4.0)
    meter.meter.add_step(step(60, 10))
    meter.meter.add_step(step(40, 20))
    meter.meter.sums += torch.tensor([30.0, 20.0, 5.0])
    meter.now += 2.0
    meter.meter.read(state, last_step=30)
    ((stage, at, epochs, values),) = meter.logged
    assert (stage, at, epochs, state.seconds) == ("pretrain", 10, 1.25, 6.0)
    assert values.pop("memory_gigabytes") > 0
    assert values == {
        "loss": 1.5, "accuracy": 0.25, "learning_rate": 0.001, "promoters_per_second": 50.0,
        "tokens_per_second": 700.0, "flop_utilisation": 1.0, "data_wait": 0.0, "skipped_steps": 2.0,
        "seconds_left": 12.0,
    }  # fmt: skip
    assert "50 promoters/s" in meter.meter.line
    meter.meter.add_step(step(10, 10))
    meter.meter.sums += torch.tensor([3.0, 10.0, 5.0])
    meter.now += 1.0
    meter.meter.read(state, last_step=30)
    assert (meter.logged[1][3]["promoters_per_second"], meter.logged[1][3]["loss"]) == (10.0, 0.3)


def test_glance_has_the_numbers_since_the_reading_and_keeps_them(meter):
    """A slow training shows new numbers before the next reading is due."""
    meter.meter.add_step(step(60, 10))
    meter.meter.sums += torch.tensor([30.0, 20.0, 5.0])
    meter.now += 2.0
    assert meter.meter.glance().startswith("loss 1.5000, 2 steps skipped, lr 1.0e-03, 30 promoters/s, ")
    meter.meter.add_step(step(40, 20))
    meter.meter.sums += torch.tensor([10.0, 20.0, 5.0])
    assert meter.meter.glance().startswith("loss 1.0000, ")
    assert not meter.logged
    meter.meter.read(StageState(step=2), last_step=30)
    assert meter.logged[0][3]["loss"] == 1.0
    assert meter.meter.glance() == meter.meter.line
    assert meter.meter.line.startswith("loss 1.0000, ")


def test_loss_that_is_not_finite_is_an_error(meter):
    meter.meter.sums += torch.tensor([float("nan"), 1.0, 1.0])
    meter.now += 1.0
    with pytest.raises(UserError, match=r"the loss is nan at step 3.*pretrain\.learning_rate"):
        meter.meter.read(StageState(step=3), last_step=30)


def test_utilization_over_100_percent_is_never_shown(meter):
    """A training faster than the measured matrix products shows that these were slowed down, here to half."""
    for seconds, expected in ((1.0, 1.0), (2.0, 0.5)):
        meter.meter.add_step(step(100, 10))
        meter.meter.sums += torch.tensor([1.0, 1.0, 1.0])
        meter.now += seconds
        meter.meter.read(StageState(step=3), last_step=30)
        assert meter.logged[-1][3]["flop_utilisation"] == expected
        assert f"FLOP utilization {expected:.1%}" in meter.meter.line
