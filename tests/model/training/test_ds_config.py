import json

import pytest

from model.config import load_config
from model.training.ds_config import read_ds_config
from pipeline.errors import UserError
from tests.conftest import ROOT


def settings(tmp_path, cuda=False, **values):
    (tmp_path / "ds.json").write_text(json.dumps({"train_micro_batch_size_per_gpu": 16, **values}))
    return read_ds_config(tmp_path / "ds.json", cuda)


def test_shipped_ds_config_uses_fp16_on_a_gpu_and_float32_on_a_cpu():
    on_gpu = read_ds_config(ROOT / "ds_config.json", cuda=True)
    assert (on_gpu.precision, on_gpu.note, on_gpu.zero_stage) == ("fp16", "", 1)
    assert on_gpu.values["fp16"]["loss_scale"] == 0  # dynamic
    assert on_gpu.values["gradient_clipping"] == 0.0  # set explicitly, as DeepSpeed's default is 1.0
    on_cpu = read_ds_config(ROOT / "ds_config.json", cuda=False)
    assert on_cpu.precision == "fp32"
    assert "float32 on this CPU" in on_cpu.note
    assert "fp16" not in on_cpu.values


def test_h200_settings_scale_the_learning_rate_with_the_batch():
    config = load_config(ROOT / "configs" / "h200.yaml")
    settings = read_ds_config(ROOT / "configs" / "ds_h200.json", cuda=True)
    for stage in (config.pretrain, config.finetune):
        plan = settings.plan(stage.global_batch, 1)
        assert (plan.micro_batch, plan.micro_batches) == (2048, 2)
        assert stage.warm_up > 0
    assert config.model == load_config().model
    # The paper's learning rates, scaled with the square root of the batch size.
    assert config.pretrain.learning_rate == pytest.approx(1e-4 * (4096 / 128) ** 0.5, rel=0.01)
    assert config.finetune.learning_rate == pytest.approx(1e-4 * (4096 / 64) ** 0.5, rel=0.01)


def test_zero_stage_defaults_to_0_as_in_deepspeed(tmp_path):
    assert settings(tmp_path).zero_stage == 0
    assert settings(tmp_path, zero_optimization={"reduce_bucket_size": 1000}).zero_stage == 0
    assert settings(tmp_path, zero_optimization={"stage": 3}).zero_stage == 3


def test_precision_follows_from_the_enabled_sections(tmp_path):
    assert settings(tmp_path, bf16={"enabled": True}).precision == "bf16"
    assert settings(tmp_path).precision == "fp32"
    with pytest.raises(UserError, match="both enabled"):
        settings(tmp_path, bf16={"enabled": True}, fp16={"enabled": True})


@pytest.mark.parametrize(
    ("batch", "ranks", "micro_batch", "micro_batches"),
    [(128, 1, 16, 8), (128, 2, 16, 4), (128, 8, 16, 1), (64, 8, 8, 1), (100, 3, 12, 3), (5, 8, 1, 1), (1, 1, 1, 1)],
)
def test_global_batch_is_divided_for_any_number_of_ranks(tmp_path, batch, ranks, micro_batch, micro_batches):
    plan = settings(tmp_path).plan(batch, ranks)
    assert (plan.micro_batch, plan.micro_batches) == (micro_batch, micro_batches)
    assert plan.micro_batch <= 16
    assert plan.micro_batch * plan.micro_batches * ranks >= batch


@pytest.mark.parametrize(("name", "value"), [("train_batch_size", 64), ("gradient_accumulation_steps", 2)])
def test_contradictory_batch_settings_are_an_error(tmp_path, name, value):
    with pytest.raises(UserError, match=rf"{name}: expected \d+, got {value}; global_batch is 128 on 2 ranks"):
        settings(tmp_path, **{name: value}).plan(128, 2)
    consistent = {"train_batch_size": 128, "gradient_accumulation_steps": 4}
    settings(tmp_path, **consistent).plan(128, 2)
    settings(tmp_path, **{name: "auto"}).plan(128, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "train_micro_batch_size_per_gpu"),
        ('{"train_micro_batch_size_per_gpu": 0}', "train_micro_batch_size_per_gpu"),
        ('{"train_micro_batch_size_per_gpu": 8, "optimizer": {}}', "optimizer: set in config.yaml"),
    ],
)
def test_invalid_ds_config_is_an_error(tmp_path, text, message):
    (tmp_path / "ds.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_ds_config(tmp_path / "ds.json", cuda=False)
    with pytest.raises(UserError, match="no such file"):
        read_ds_config(tmp_path / "none.json", cuda=False)
