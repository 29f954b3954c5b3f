import pytest
import torch

from model.training.schedule import LearningRate


def schedule(made, warm_up, **plateau):
    stage = made.config.finetune
    plateau = stage.plateau.model_copy(update={"factor": 0.5, "patience": 0, "min_lr": 0.0, **plateau})
    stage = stage.model_copy(update={"learning_rate": 0.1, "warm_up": warm_up, "plateau": plateau})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=stage.learning_rate)
    return LearningRate(optimizer, stage), optimizer


def rates(rate, optimizer, steps):
    values = []
    for step in steps:
        rate.before_step(step, 100)
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
