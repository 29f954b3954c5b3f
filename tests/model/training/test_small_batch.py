import pytest

from model.config import load_config
from model.training.small_batch import describe_small_batch
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("config", "name", "gpus", "per_gpu"),
    [
        ("config.yaml", "finetune", 1, 64), ("config.yaml", "finetune", 16, 4), ("config.yaml", "pretrain", 16, 8),
        ("configs/h200.yaml", "finetune", 16, 256), ("configs/h200.yaml", "pretrain", 8, 512),
    ],
)  # fmt: skip
def test_batch_that_is_too_small_for_the_gpus_is_described(config, name, gpus, per_gpu):
    assert f" is {per_gpu} per GPU" in describe_small_batch(load_config(ROOT / config), name, gpus)


@pytest.mark.parametrize(("name", "gpus"), [("finetune", 1), ("finetune", 11), ("pretrain", 4)])
def test_batches_of_the_gpu_preset_are_large_enough(name, gpus):
    assert describe_small_batch(load_config(ROOT / "configs" / "h200.yaml"), name, gpus) == ""


def test_one_frame_per_promoter_needs_more_promoters():
    config = load_config(ROOT / "config.yaml", ["finetune.tokens=overlapping", "finetune.global_batch=1000"])
    assert "at least 1,024 promoters" in describe_small_batch(config, "finetune", 1)
    config = load_config(ROOT / "config.yaml", ["finetune.global_batch=1000"])
    assert describe_small_batch(config, "finetune", 1) == ""
