"""Rules for the keys of ds_config.json: those that train.py uses, and those of DeepSpeed's tutorials that it refuses.

DeepSpeed ignores a key that it does not know, and ends with a traceback on many values, so each key is checked here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


@dataclass(frozen=True)
class Rule:
    """Values that a key may have. problem, fix: texts of the error; {value} in a problem is replaced by the value."""

    accepts: Callable[[Any], bool]
    problem: str
    fix: str = "correct the value, or remove the key"


def _is_whole(value: Any, least: int) -> bool:
    """Return whether a JSON value is a whole number, such as 64 or 5e8."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= least and value == value // 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _is_off(value: Any) -> bool:
    """Return whether a value, or each value of a section, switches nothing on."""
    if isinstance(value, dict):
        switch = value.get("enabled", value.get("device"))
        return _is_off(switch) if switch is not None else all(_is_off(entry) for entry in value.values())
    return value in (None, False, 0, "", "none")


FLAG = Rule(lambda value: isinstance(value, bool), "expected true or false, got {value}")
SIZE = Rule(lambda value: _is_whole(value, 1), "expected a whole number of at least 1, got {value}")
COUNT = Rule(lambda value: _is_whole(value, 0), "expected a whole number of at least 0, got {value}")
NUMBER = Rule(_is_number, "expected a number of at least 0, got {value}")
SECTION = Rule(lambda value: isinstance(value, dict), "expected a JSON object, got {value}")
SIZE_OR_AUTO = Rule(
    lambda value: value == "auto" or _is_whole(value, 1), "expected auto or a whole number of at least 1, got {value}"
)
STAGE = Rule(lambda value: _is_whole(value, 0) and value <= 3, "expected 0, 1, 2 or 3, got {value}", "set it to 1")
DTYPE = Rule(lambda value: value in ("fp16", "bf16", "fp32"), "expected fp16, bf16 or fp32, got {value}")
IN_CONFIG_YAML = Rule(lambda _: False, "set in config.yaml (learning_rate, schedule, weight_decay)", "remove it here")
UNKNOWN = Rule(lambda _: False, "no setting that train.py uses", "remove it, or correct its name")


def _off(reason: str, fix: str = "remove it") -> Rule:
    """Make the rule of a feature that may be in the file if it is off."""
    return Rule(_is_off, f"not supported, as {reason}", fix)


_ON_GPU = _off("the optimizer runs on the GPU, where this model and its optimizer need little memory")
_TORCH_ADAM = _off("torch's Adam keeps float32 weights and states")
_UNUSED = _off("train.py does not use this feature of DeepSpeed")

RULES: dict[str, Rule] = {
    **dict.fromkeys(("train_batch_size", "gradient_accumulation_steps"), SIZE_OR_AUTO),
    **dict.fromkeys(("train_micro_batch_size_per_gpu", "steps_per_print"), SIZE),
    **dict.fromkeys(("zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "dump_state"), FLAG),
    **dict.fromkeys(("wall_clock_breakdown", "memory_breakdown"), FLAG),
    **dict.fromkeys(("timers", "flops_profiler", "comms_logger", "tensorboard", "csv_monitor", "aio"), SECTION),
    **dict.fromkeys(("zero_optimization", "fp16", "bf16"), SECTION),
    **dict.fromkeys(("optimizer", "scheduler"), IN_CONFIG_YAML),
    "gradient_clipping": NUMBER,
    "communication_data_type": DTYPE,
    "activation_checkpointing": _off(
        "the model keeps its activations", "remove it; a lower train_micro_batch_size_per_gpu needs less memory"
    ),
    "bfloat16": _off("its name here is bf16", "rename it to bf16"),
    **dict.fromkeys(("amp", "torch_autocast", "data_types"), _off("fp16 and bf16 set the precision")),
    **dict.fromkeys(("wandb", "comet"), _off("the run directory holds the metrics, for TensorBoard, too")),
    "elasticity": _off("a run resumes on any number of ranks without it"),
    **dict.fromkeys(
        (
            "autotuning", "checkpoint", "compile", "compression_training", "curriculum_learning", "data_efficiency",
            "disable_allgather", "eigenvalue", "graph_harvesting", "hybrid_engine", "pipeline", "prescale_gradients",
            "progressive_layer_drop", "quantize_training", "sparse_attention", "sparse_gradients", "tensor_parallel",
        ),
        _UNUSED,
    ),
}  # fmt: skip
"""Rules by key. A key without a rule is refused."""

ZERO_RULES: dict[str, Rule] = {
    "stage": STAGE,
    **dict.fromkeys(
        (
            "contiguous_gradients", "reduce_scatter", "use_multi_rank_bucket_allreduce", "allgather_partitions",
            "overlap_comm", "compute_grad_norm", "ignore_unused_parameters", "round_robin_gradients",
            "parameter_alignment", "memory_efficient_linear", "stage3_gather_16bit_weights_on_model_save",
            "stage3_gather_fp16_weights_on_model_save",
        ),
        FLAG,
    ),
    **dict.fromkeys(("reduce_bucket_size", "allgather_bucket_size", "sub_group_size"), SIZE),
    **dict.fromkeys(
        (
            "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "stage3_model_persistence_threshold",
            "stage3_max_live_parameters", "stage3_max_reuse_distance",
        ),
        COUNT,
    ),
    **dict.fromkeys(
        ("offload_optimizer", "offload_param", "cpu_offload", "cpu_offload_param", "cpu_offload_params"), _ON_GPU
    ),
    "cpu_offload_use_pin_memory": _ON_GPU,
    **dict.fromkeys(
        (
            "zenflow", "zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients",
            "elastic_checkpoint", "legacy_stage1",
        ),
        _UNUSED,
    ),
}  # fmt: skip
"""Rules for the keys of zero_optimization. The value auto selects train.py's own default."""

FP16_RULES: dict[str, Rule] = {
    **dict.fromkeys(("enabled", "auto_cast", "consecutive_hysteresis"), FLAG),
    **dict.fromkeys(("loss_scale", "min_loss_scale"), NUMBER),
    **dict.fromkeys(("loss_scale_window", "hysteresis"), SIZE),
    "initial_scale_power": COUNT,
    "fp16_master_weights_and_grads": _TORCH_ADAM,
}
BF16_RULES: dict[str, Rule] = {
    **dict.fromkeys(("enabled", "immediate_grad_update", "check_grad_overflow"), FLAG),
    **dict.fromkeys(("bf16_master_weights_and_grads", "bf16_optimizer_states"), _TORCH_ADAM),
}
SECTIONS = {"zero_optimization": ZERO_RULES, "fp16": FP16_RULES, "bf16": BF16_RULES}
"""Rules of the sections whose keys are checked."""


def check_keys(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check each key of DeepSpeed's settings. Returns the settings without the features that are off.

    Raises UserError with one line per key that is unknown, not supported, or has an invalid value.
    """
    values = dict(values)
    zero = values.get("zero_optimization")
    if isinstance(zero, dict):
        values["zero_optimization"] = {
            name: value for name, value in zero.items() if value != "auto" or name == "stage"
        }
    problems = list(_find_problems(path, values, RULES, ""))
    for section, rules in SECTIONS.items():
        if isinstance(values.get(section), dict):
            problems += _find_problems(path, values[section], rules, f"{section}.")
            values[section] = _drop_off(values[section], rules)
    if problems:
        raise UserError("\n".join(problems))
    return _drop_off(values, RULES)


def _find_problems(path: Path, values: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        rule = rules.get(name, UNKNOWN)
        if not rule.accepts(value):
            text = json.dumps(value)
            is_auto = text == '"auto"' and name in rules and rule is not IN_CONFIG_YAML
            fix = "set a value; auto is for Hugging Face's Trainer" if is_auto else rule.fix
            yield f"{path}: {prefix}{name}: {rule.problem.replace('{value}', text)}; fix: {fix}"


def _drop_off(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Drop the features that are off, as DeepSpeed refuses some of them in any case."""
    return {name: value for name, value in values.items() if name in rules and rules[name].accepts is not _is_off}
