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


@pytest.mark.parametrize(("file", "precision"), [("ds_h200.json", "fp16"), ("ds_h200_bf16.json", "bf16")])
def test_h200_settings_scale_the_learning_rate_with_the_batch(file, precision):
    config = load_config(ROOT / "configs" / "h200.yaml")
    settings = read_ds_config(ROOT / "configs" / file, cuda=True)
    assert (settings.precision, settings.zero_stage) == (precision, 1)
    for stage in (config.pretrain, config.finetune):
        plan = settings.plan(stage.global_batch, 1)
        assert (plan.micro_batch, plan.micro_batches) == (4096, 1)
        assert stage.warm_up > 0
    assert config.model == load_config().model.model_copy(update={"compile": True})
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


@pytest.mark.parametrize("cuda", [False, True])
def test_fp16_without_zero_is_an_error(tmp_path, cuda):
    """DeepSpeed 0.19 divides these gradients by the loss scale, but does not scale the loss."""
    for zero in ({}, {"zero_optimization": {"stage": 0}}):
        with pytest.raises(UserError, match=r"ds\.json: zero_optimization\.stage: expected 1, 2 or 3 with fp16, got 0"):
            settings(tmp_path, cuda, fp16={"enabled": True}, **zero)
    assert settings(tmp_path, cuda, fp16={"enabled": True}, zero_optimization={"stage": 2}).zero_stage == 2
    assert settings(tmp_path, cuda, fp16={"enabled": False}).zero_stage == 0
    assert settings(tmp_path, cuda, bf16={"enabled": True}).precision == "bf16"


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


OFFLOAD = {
    "train_micro_batch_size_per_gpu": 64,
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    "fp16": {
        "enabled": True, "loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2,
        "min_loss_scale": 1,
    },
    "gradient_clipping": 0.0,
    "steps_per_print": 1000000000,
}  # fmt: skip
"""Settings from DeepSpeed's tutorial of ZeRO-Offload."""


def test_a_stage_clips_gradients(tmp_path):
    """A norm of 0 keeps that of the file. A norm above it is refused where DeepSpeed is told to omit the norm."""
    file = tmp_path / "ds.json"
    for zero, norm in (({}, 0.5), ({"zero_optimization": {"stage": 1, "compute_grad_norm": False}}, None)):
        file.write_text(json.dumps({"train_micro_batch_size_per_gpu": 8, "gradient_clipping": norm or 0.0, **zero}))
        settings = read_ds_config(file, cuda=False)
        assert settings.clip(0.0) is settings
        if norm is None:
            with pytest.raises(UserError, match="compute_grad_norm"):
                settings.clip(2.0)
        else:
            assert settings.clip(2.0).values == {**settings.values, "gradient_clipping": 2.0}


def test_offload_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError) as refused:
        settings(tmp_path, **OFFLOAD)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{tmp_path}/ds.json: zero_optimization.offload_optimizer: not supported")
    assert line.endswith("; fix: remove it")
    without = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}}}
    assert settings(tmp_path, **OFFLOAD | without).zero_stage == 2


TRAINER = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": "auto", "warmup_num_steps": "auto"}},
    "zero_optimization": {
        "stage": 3, "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "offload_param": {"device": "cpu", "pin_memory": True}, "overlap_comm": True, "contiguous_gradients": True,
        "sub_group_size": 1e9, "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9, "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto", "gradient_clipping": "auto", "steps_per_print": 2000,
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "wall_clock_breakdown": False,
}  # fmt: skip
"""Settings from the documentation of Hugging Face's Trainer."""


def test_settings_of_hugging_face_trainer_are_refused_key_by_key(tmp_path):
    with pytest.raises(UserError) as refused:
        settings(tmp_path, **TRAINER)
    lines = str(refused.value).splitlines()
    keys = "optimizer", "scheduler", "gradient_clipping", "train_micro_batch_size_per_gpu"
    nested = "zero_optimization.offload_optimizer", "zero_optimization.offload_param", "fp16.enabled"
    assert sorted(line.split(": ")[1] for line in lines) == sorted([*keys, *nested])
    assert all(line.startswith(f"{tmp_path}/ds.json: ") for line in lines)
    assert all("; fix: " in line for line in lines)
    zero = TRAINER["zero_optimization"] | {"offload_optimizer": {"device": "none"}, "offload_param": None}
    numbers = {"gradient_clipping": 0.0, "train_micro_batch_size_per_gpu": 8, "fp16": {"enabled": True}}
    corrected = {name: value for name, value in TRAINER.items() if name not in ("optimizer", "scheduler")}
    accepted = settings(tmp_path, cuda=True, **corrected | numbers | {"zero_optimization": zero}).values[
        "zero_optimization"
    ]
    assert accepted.keys() == {
        "stage", "overlap_comm", "contiguous_gradients", "sub_group_size", "stage3_max_live_parameters",
        "stage3_max_reuse_distance", "stage3_gather_16bit_weights_on_model_save",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"activation_checkpointing": {"partition_activations": True}}, "activation_checkpointing"),
        ({"amp": {"enabled": True}}, "amp"),
        ({"bf16": {"enabled": "auto"}}, "bf16.enabled"),
        ({"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}, "bf16.bf16_master_weights_and_grads"),
        ({"bfloat16": {"enabled": True}}, "bfloat16"),
        ({"communication_data_type": "float16"}, "communication_data_type"),
        ({"data_types": {"grad_accum_dtype": "fp32"}}, "data_types"),
        ({"elasticity": {"enabled": True}}, "elasticity"),
        ({"fp16": True}, "fp16"),
        ({"fp16": {"enabled": False, "opt_level": "O2"}}, "fp16.opt_level"),
        ({"gradient_clipping": "1.0"}, "gradient_clipping"),
        ({"prescale_gradients": True}, "prescale_gradients"),
        ({"sparse_gradients": True}, "sparse_gradients"),
        ({"steps_per_print": "10"}, "steps_per_print"),
        ({"torch_autocast": {"enabled": True, "dtype": "float16"}}, "torch_autocast"),
        ({"train_batch_size": "128"}, "train_batch_size"),
        ({"wandb": {"enabled": True}}, "wandb"),
        ({"zero_optimisation": {"stage": 2}}, "zero_optimisation"),
        ({"zero_optimization": True}, "zero_optimization"),
        ({"zero_optimization": {"stage": "auto"}}, "zero_optimization.stage"),
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage"),
        ({"zero_optimization": {"stage": 3, "compute_grad_norm": False}}, "zero_optimization.compute_grad_norm"),
        ({"zero_optimization": {"stage": 2, "cpu_offload": True}}, "zero_optimization.cpu_offload"),
        ({"zero_optimization": {"stage": 2, "reduce_bucket_size": -1}}, "zero_optimization.reduce_bucket_size"),
        ({"zero_optimization": {"stage": 2, "overlapcomm": True}}, "zero_optimization.overlapcomm"),
        (
            {"zero_optimization": {"stage": 3, "zero_quantized_weights": True}},
            "zero_optimization.zero_quantized_weights",
        ),
    ],
)
def test_key_that_would_be_ignored_or_end_in_a_traceback_is_refused_in_one_line(tmp_path, values, key):
    with pytest.raises(UserError) as refused:
        settings(tmp_path, **values)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{tmp_path}/ds.json: {key}: ")
    assert "; fix: " in line


def test_features_that_are_off_are_accepted(tmp_path):
    """Configurations in tutorials list them; DeepSpeed 0.19 refuses some of them even so."""
    off = {
        "activation_checkpointing": {"partition_activations": False, "number_checkpoints": None},
        "amp": {"enabled": False, "opt_level": "O1"},
        "graph_harvesting": False,
        "prescale_gradients": False,
        "sparse_gradients": False,
        "zero_optimization": {"stage": 2, "cpu_offload": False, "offload_optimizer": {"device": "none", "ratio": 1.0}},
        "elasticity": {"enabled": False, "max_train_batch_size": 2000},
    }
    read = settings(tmp_path, **off).values
    assert read == {
        "train_micro_batch_size_per_gpu": 16,
        "zero_optimization": {"stage": 2},
        "gradient_clipping": 0.0,
    }


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
