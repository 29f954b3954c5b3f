import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from model.training.optimization.schedule import LearningRate

STEPS = 100


def schedule(made, warm_up, kind="plateau", **plateau):
    stage = made.config.finetune.model_copy(update={"schedule": kind})
    plateau = stage.plateau.model_copy(update={"factor": 0.5, "patience": 0, "min_lr": 0.0, **plateau})
    stage = stage.model_copy(update={"learning_rate": 0.1, "warm_up": warm_up, "plateau": plateau})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=stage.learning_rate)
    return LearningRate(optimizer, stage), optimizer


def rates(rate, optimizer, steps):
    values = []
    for step in steps:
        rate.before_step(step, STEPS)
        assert optimizer.param_groups[0]["lr"] == rate.current
        values.append(rate.current)
    return values


def test_learning_rate_rises_linearly_during_warm_up(made):
    assert rates(*schedule(made, 4), range(6)) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert rates(*schedule(made, 0), range(3)) == pytest.approx([0.1] * 3)


def test_plateau_during_warm_up_lowers_the_rate_after_it(made):
    rate, optimizer = schedule(made, 4)
    rates(rate, optimizer, range(2))
    for metric in (0.5, 0.5):
        rate.after_evaluation(metric)
    assert rate.rate == pytest.approx(0.05)
    assert rates(rate, optimizer, range(2, 6)) == pytest.approx([0.0375, 0.05, 0.05, 0.05])


def test_loaded_schedule_continues(made):
    """With patience 1 the rate falls at the second evaluation without improvement, which comes after the resume."""
    rate, _ = schedule(made, 0, patience=1)
    for metric in (0.5, 0.4):
        rate.after_evaluation(metric)
    resumed, optimizer = schedule(made, 0, patience=1)
    resumed.load(rate.rate, rate.plateau.state_dict())
    resumed.after_evaluation(0.4)
    assert optimizer.param_groups[0]["lr"] == resumed.rate == pytest.approx(0.05)


def test_cosine_falls_to_zero_after_the_warm_up(made):
    rate, optimizer = schedule(made, 20, "cosine")
    values = rates(rate, optimizer, range(STEPS))
    assert values[:20] == pytest.approx([0.1 * (step + 1) / 20 for step in range(20)])
    expected = [0.05 * (1 + torch.cos(torch.tensor(torch.pi * step / 80)).item()) for step in range(80)]
    assert values[20:] == pytest.approx(expected, abs=1e-7)
    rate.after_evaluation(0.5)
    rate.after_evaluation(0.4)
    assert rates(rate, optimizer, [20]) == pytest.approx([0.1])  # no plateau


@pytest.mark.parametrize("steps", [8, 10, 100])
def test_one_cycle_equals_torch(made, steps):
    """Rates and Adam's first beta, step by step, also if a resume begins in the middle."""
    stage = made.config.finetune.model_copy(update={"learning_rate": 0.1, "warm_up": 0, "schedule": "onecycle"})
    own, torchs = (torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(2))
    rate = LearningRate(own, stage)
    # torch divides by zero if the rise has no length.
    expected = OneCycleLR(torchs, 0.1, steps, pct_start=0.1) if steps != 10 else None
    for step in range(steps):
        if step == steps // 2:
            state = rate.rate, rate.plateau.state_dict()
            rate = LearningRate(own, stage)
            rate.load(*state)
        rate.before_step(step, steps)
        group = own.param_groups[0]
        if expected is None:
            assert 0 < group["lr"] <= 0.1
            continue
        assert group["lr"] == pytest.approx(torchs.param_groups[0]["lr"], rel=1e-6)
        assert group["betas"] == pytest.approx(torchs.param_groups[0]["betas"])
        torchs.step()
        expected.step()
