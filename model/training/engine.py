"""ds_config.json -> a DeepSpeed engine for one stage, on this machine's precision."""

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from model.config import Stage
from model.distributed.process_group import World, limit_waits
from pipeline.errors import UserError
from pipeline.paths import shipped

DEFAULT_DS_CONFIG = shipped("ds_config.json")


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is cut: promoters a micro-batch at most, and micro-batches a step on each rank."""

    micro_batch: int
    micro_batches: int


@dataclass(frozen=True)
class DeepSpeedSettings:
    """DeepSpeed's own settings as they are used here."""

    values: dict[str, Any]
    precision: Literal["fp16", "bf16", "fp32"]
    note: str
    """What was changed to fit this machine, or empty."""

    @property
    def zero_stage(self) -> int:
        """ZeRO stage, 0 to 3."""
        return int(self.values.get("zero_optimization", {}).get("stage", 0))

    def plan(self, global_batch: int, ranks: int) -> BatchPlan:
        """Cut a global batch of the config into micro-batches no larger than DeepSpeed's setting.

        Raises UserError where DeepSpeed's settings state another batch than the config does.
        """
        micro = int(self.values["train_micro_batch_size_per_gpu"])
        per_rank = math.ceil(global_batch / ranks)
        micro_batches = math.ceil(per_rank / micro)
        stated = {
            "train_batch_size": global_batch,
            "gradient_accumulation_steps": micro_batches,
        }
        for name, expected in stated.items():
            given = self.values.get(name, "auto")
            if given not in ("auto", expected):
                raise UserError(
                    f"the DeepSpeed config says {name} = {given}, but global_batch = {global_batch} on {ranks} ranks "
                    f"with micro-batches of at most {micro} makes it {expected}; take {name} out, or change one of them"
                )
        return BatchPlan(math.ceil(per_rank / micro_batches), micro_batches)


def read_ds_config(path: Path, cuda: bool) -> DeepSpeedSettings:
    """Read DeepSpeed's settings. fp16 is for GPUs: on a CPU it is replaced by float32, and the note says so."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot read DeepSpeed's config: {error.strerror}; expected a file like the project's "
            "ds_config.json (--deepspeed_config FILE)"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object of DeepSpeed's settings")
    micro = values.get("train_micro_batch_size_per_gpu")
    if not isinstance(micro, int) or micro < 1:
        raise UserError(f"{path}: train_micro_batch_size_per_gpu: expected a whole number from 1 on, got {micro!r}")
    for taken in ("optimizer", "scheduler"):
        if taken in values:
            raise UserError(f"{path}: {taken}: stands in config.yaml (learning_rate, plateau); take it out here")
    values.setdefault("gradient_clipping", 0.0)  # DeepSpeed's own default, 1.0, would clip without a word
    fp16, bf16 = (values.get(name, {}).get("enabled", False) for name in ("fp16", "bf16"))
    if fp16 and bf16:
        raise UserError(f"{path}: fp16 and bf16 are both enabled; enable one")
    if fp16 and not cuda:
        values = {name: value for name, value in values.items() if name != "fp16"}
        return DeepSpeedSettings(values, "fp32", "fp16 needs a GPU: training in float32 on this CPU")
    return DeepSpeedSettings(values, "fp16" if fp16 else "bf16" if bf16 else "fp32", "")


def make_optimizer(module: nn.Module, stage: Stage, decoupled: bool) -> torch.optim.Optimizer:
    """Adam, or AdamW without weight decay (the same steps; the paper's two names)."""
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return kind(trained, lr=stage.learning_rate, weight_decay=0.0, fused=True)


def make_engine(
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: DeepSpeedSettings,
    plan: BatchPlan,
    world: World,
    universal: bool = False,
) -> Any:
    """A DeepSpeed engine around a task. The learning rate stays in the hands of `optimizer`'s groups.

    universal: the checkpoint that will be loaded is in the form for any number of ranks.
    """
    import deepspeed

    # DeepSpeed 0.19 calls what torch 2.13 renames; two lines of it a rank say nothing to a user.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    # DeepSpeed's own buckets hold 500 million numbers, whatever the size of the model.
    # Ours hold the model, rounded up to what its buffers are aligned to.
    weights = sum(parameter.numel() for parameter in task.parameters())
    buckets = dict.fromkeys(("reduce_bucket_size", "allgather_bucket_size"), -(-weights // 1024) * 1024)
    values = {
        **settings.values,
        "zero_optimization": {**buckets, **settings.values.get("zero_optimization", {})},
        "checkpoint": {**settings.values.get("checkpoint", {}), "load_universal": universal},
        # Where nobody asks for it, DeepSpeed waits for the GPU twice a micro-batch, for a figure that is not shown.
        "timers": settings.values.get("timers", {"throughput": {"enabled": False}}),
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.micro_batches,
    }
    values.pop("train_batch_size", None)
    engine, *_ = deepspeed.initialize(
        model=task.to(world.device), optimizer=optimizer, config=values, dist_init_required=False
    )
    limit_waits()
    return engine


def loss_scale(engine: Any) -> float | None:
    """What the loss is multiplied by in fp16, None in other precisions."""
    return float(engine.optimizer.loss_scale) if engine.fp16_enabled() else None
