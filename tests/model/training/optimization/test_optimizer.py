"""Optimizers of a stage: Adam and Muon."""

import json

import pytest
import torch

from model.bert.build import build_task
from model.training.ds_config import read_ds_config
from model.training.optimization.optimizer import check_optimizer, make_optimizer
from model.training.optimization.schedule import LearningRate
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from tests.model.muon.random_steps import take_random_steps

MUON = {"optimizer": "muon", "muon_learning_rate": 0.05, "weight_decay": 0.1, "warm_up": 0}


def muon_stage(made, **values):
    return made.config.finetune.model_copy(update={**MUON, **values})


def build(made, architecture="bert"):
    model = made.config.model.model_copy(update={"architecture": architecture})
    torch.manual_seed(1)
    return build_task(made.config.model_copy(update={"model": model}), read_index(made.shards), "finetune")


@pytest.mark.parametrize(("architecture", "per_layer"), [("bert", 6), ("modernbert", 4)])
def test_muon_has_the_matrices_of_the_layers_and_adam_all_others(made, architecture, per_layer):
    task = build(made, architecture)
    adam, muon = make_optimizer("finetune", muon_stage(made), task).param_groups
    assert (adam["lr"], muon["lr"]) == (made.config.finetune.learning_rate, 0.05)
    names = {id(weights): name for name, weights in task.named_parameters()}
    of_muon, of_adam = ([names[id(weights)] for weights in group["params"]] for group in (muon, adam))
    assert len(of_muon) == per_layer * made.config.model.layers
    assert all(".layer" in name and name.endswith("weight") for name in of_muon)
    assert sorted(of_muon + of_adam) == sorted(names.values())


def test_muon_takes_the_steps_of_torch(made):
    """torch.optim.Muon and AdamW are the oracle; both orthogonalize in bfloat16, with another rounding."""
    own, torchs = build(made), build(made)
    stage = muon_stage(made)
    optimizer = make_optimizer("finetune", stage, own)
    muon = {id(weights) for weights in optimizer.param_groups[1]["params"]}
    pairs = list(zip(own.parameters(), torchs.parameters(), strict=True))
    matrices, others = ([b for a, b in pairs if (id(a) in muon) is chosen] for chosen in (True, False))
    decay = stage.weight_decay
    oracles = (
        torch.optim.Muon(matrices, lr=0.05, weight_decay=decay),
        torch.optim.AdamW(others, lr=stage.learning_rate, weight_decay=decay),
    )
    take_random_steps(pairs, (optimizer, *oracles))
    for (a, b), start in zip(pairs, build(made).parameters(), strict=True):
        difference, change = (a - b).norm(), (b - start).norm()
        assert difference < (0.1 if id(a) in muon else 1e-4) * change


def test_schedules_change_both_rates_by_the_same_factor(made):
    stage = muon_stage(made, schedule="onecycle")
    optimizer = make_optimizer("finetune", stage, build(made))
    rate = LearningRate(optimizer, stage)
    for step in range(20):
        rate.before_step(step, 20)
        adam, muon = (group["lr"] for group in optimizer.param_groups)
        assert adam == rate.current
        assert muon / adam == pytest.approx(0.05 / stage.learning_rate)
    assert muon < 1e-6
    rate.load(stage.learning_rate / 2, rate.plateau.state_dict())
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.025)


def test_without_trained_layers_all_weights_have_adam(made):
    task = build(made)
    for name, weights in task.named_parameters():
        weights.requires_grad = ".layer." not in name
    optimizer = make_optimizer("finetune", muon_stage(made), task)
    assert type(optimizer) is torch.optim.AdamW
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("zero", "norm", "problem"),
    [(3, 0.0, r"zero_optimization\.stage: expected 1 or 2"), (1, 1.0, r"gradient_clipping: expected 0 .* got 1")],
)
def test_settings_that_muon_cannot_use_are_an_error(made, tmp_path, zero, norm, problem):
    file = tmp_path / "ds.json"
    values = {"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": zero}, "gradient_clipping": norm}
    file.write_text(json.dumps(values))
    settings = read_ds_config(file, cuda=False)
    check_optimizer("finetune", made.config.finetune, settings)
    with pytest.raises(UserError, match=problem):
        check_optimizer("finetune", muon_stage(made), settings)
    with pytest.raises(UserError, match=r"finetune\.gradient_clipping: expected 0 .* got 2" if zero < 3 else problem):
        check_optimizer("finetune", muon_stage(made, gradient_clipping=2.0), settings)
