"""Read and validate ds_config.json, DeepSpeed's own settings, and divide global batches into micro-batches."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from model.artifacts.json_files import read_json
from model.training.ds_keys import check_keys
from pipeline.errors import UserError
from pipeline.paths import looked_in, shipped

DEFAULT_DS_CONFIG = shipped("ds_config.json")


@dataclass(frozen=True)
class BatchPlan:
    """Division of a global batch. micro_batch: most promoters per micro-batch; micro_batches: per step and rank."""

    micro_batch: int
    micro_batches: int


@dataclass(frozen=True)
class DeepSpeedSettings:
    """DeepSpeed's settings as used on this machine. note: describes a change for this machine, or empty."""

    values: dict[str, Any]
    precision: Literal["fp16", "bf16", "fp32"]
    note: str

    @property
    def zero_stage(self) -> int:
        """Return the ZeRO stage, 0 to 3. As in DeepSpeed, the default is 0."""
        return int(self.values.get("zero_optimization", {}).get("stage", 0))

    def clip(self, norm: float) -> "DeepSpeedSettings":
        """Return the settings with gradients clipped at a norm, unless it is 0.

        Raises UserError if DeepSpeed is told to omit the gradient norm.
        """
        if not norm:
            return self
        clipped = replace(self, values={**self.values, "gradient_clipping": norm})
        _check_norm("DeepSpeed config", clipped.values)
        return clipped

    def plan(self, global_batch: int, ranks: int) -> BatchPlan:
        """Divide a global batch of config.yaml into micro-batches that are no larger than DeepSpeed's setting.

        Raises UserError if the batch settings of the DeepSpeed config contradict config.yaml.
        """
        largest = int(self.values["train_micro_batch_size_per_gpu"])
        per_rank = math.ceil(global_batch / ranks)
        micro_batches = math.ceil(per_rank / largest)
        for name, expected in (("train_batch_size", global_batch), ("gradient_accumulation_steps", micro_batches)):
            value = self.values.get(name, "auto")
            if value not in ("auto", expected):
                raise UserError(
                    f"DeepSpeed config: {name}: expected {expected}, got {value}; global_batch is {global_batch} on "
                    f"{ranks} ranks with micro-batches of at most {largest}; fix: remove {name}, or set it to auto"
                )
        return BatchPlan(math.ceil(per_rank / micro_batches), micro_batches)


def read_ds_config(path: Path, cuda: bool) -> DeepSpeedSettings:
    """Read and validate DeepSpeed's settings. cuda: whether there is a GPU; on a CPU fp16 is replaced by float32.

    Raises UserError if the file is missing or invalid.
    """
    expected = "expected DeepSpeed's settings, a JSON object as in ds_config.json (--deepspeed_config FILE)"
    if not path.is_file():
        raise UserError(f"{path}: no such file{looked_in(path)}; {expected}")
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; {expected}")
    values = check_keys(path, values)
    if "train_micro_batch_size_per_gpu" not in values:
        raise UserError(f"{path}: train_micro_batch_size_per_gpu: missing; fix: set it to a whole number, such as 64")
    values.setdefault("gradient_clipping", 0.0)  # DeepSpeed's default of 1.0 would clip without a message
    _check_norm(path, values)
    fp16, bf16 = (values.get(name, {}).get("enabled", False) for name in ("fp16", "bf16"))
    if fp16 and bf16:
        raise UserError(f"{path}: fp16 and bf16 are both enabled; fix: enable one of them")
    if fp16 and DeepSpeedSettings(values, "fp16", "").zero_stage == 0:
        raise UserError(
            f"{path}: zero_optimization.stage: expected 1, 2 or 3 with fp16, got 0; at stage 0 DeepSpeed does not "
            "scale the loss, so small gradients are lost; fix: set it to 1, or use bf16"
        )
    if fp16 and not cuda:
        values = {name: value for name, value in values.items() if name != "fp16"}
        return DeepSpeedSettings(values, "fp32", "fp16 needs a GPU: training in float32 on this CPU")
    return DeepSpeedSettings(values, "fp16" if fp16 else "bf16" if bf16 else "fp32", "")


def drop_unknown_switches(values: dict[str, Any]) -> dict[str, Any]:
    """Drop the switches that the installed DeepSpeed does not know. Without them it does more than is needed."""
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    known = {"zero_optimization": DeepSpeedZeroConfig.model_fields, "bf16": DeepSpeedBF16Config.model_fields}
    switches = {"zero_optimization": "compute_grad_norm", "bf16": "check_grad_overflow"}
    return {
        name: {key: each for key, each in value.items() if key != switches[name] or key in known[name]}
        if name in switches
        else value
        for name, value in values.items()
    }


def _check_norm(path: Path | str, values: dict[str, Any]) -> None:
    """Check that DeepSpeed can omit the gradient norm if the settings ask for that."""
    zero = values.get("zero_optimization", {})
    if zero.get("compute_grad_norm", True) or (zero.get("stage") in (1, 2) and not values["gradient_clipping"]):
        return
    raise UserError(
        f"{path}: zero_optimization.compute_grad_norm: expected true with gradient_clipping or at ZeRO 0 and 3, got "
        "false; fix: remove it, or use stage 1 or 2 with gradient_clipping 0.0"
    )
