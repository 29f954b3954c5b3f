"""DeepSpeed engine of one stage, and its training step."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from model.bert.device_batch import pass_to_device
from model.bert.fused_attention import fuse_projections
from model.bert.objectives import FinetuneTask, PretrainTask
from model.bert.rng import derive_seed, make_generator
from model.bert.spans import SpanTask
from model.config import Stage, StageName
from model.distributed.process_group import World, set_group_timeouts
from model.training.ds_config import BatchPlan, DeepSpeedSettings, drop_unknown_switches
from model.training.optimization.optimizer import make_optimizer
from model.training.optimization.schedule import LearningRate
from pipeline.errors import UserError
from pipeline.stream.stream import Step


@dataclass(frozen=True)
class StageEngine:
    """Model of a stage as DeepSpeed trains it on this rank.

    task: objective around the model; deepspeed: DeepSpeed's engine around the task; rate: learning-rate schedule; plan:
    division of the global batch; seed: of the run, for dropout and masks; frozen: float32 weights that are not trained,
    by name.
    """

    stage: StageName
    task: PretrainTask | SpanTask | FinetuneTask
    deepspeed: Any
    rate: LearningRate
    plan: BatchPlan
    world: World
    seed: int
    frozen: dict[str, torch.Tensor]

    @property
    def skipped_steps(self) -> int:
        """Return the number of steps that fp16 has skipped because gradients overflowed."""
        return int(self.deepspeed.skipped_steps)

    @property
    def loss_scale(self) -> float | None:
        """Return the current loss scale of fp16; None in other precisions."""
        return float(self.deepspeed.optimizer.loss_scale) if self.deepspeed.fp16_enabled() else None

    def compile(self, backend: str = "inductor") -> None:
        """Compile the step with a backend of torch.compile."""
        if self.task.may_cut:
            self.task.compile_passes(backend)
        else:  # DeepSpeed prepares its hooks of ZeRO 3 for the compiler
            self.deepspeed.compile(backend=backend)

    def train_step(self, step: Step, sums: torch.Tensor) -> None:
        """Take one optimizer step over this rank's micro-batches. All ranks call this.

        sums: (3,) float64 on the device; loss, count and correct of the micro-batches are added to it. The step
        follows the gradient of the mean loss of the whole global batch. Raises UserError if fp16 overflows at the
        smallest scale.
        """
        task, world, first = self.task, self.world, step.micro_batches[0]
        position = (self.seed, self.stage, step.epoch, step.number)
        torch.manual_seed(derive_seed(*position, world.rank))  # dropout
        draws = task.draw(first, make_generator(world.device, *position))
        # DeepSpeed divides by the number of micro-batches and averages over ranks, so undo both.
        scale = world.ranks * self.plan.micro_batches / task.compute_normalizer(first, draws)
        for batch in step.micro_batches:
            passes = task.cut(batch, world.device)
            out = self.deepspeed(*(pass_to_device(batch, one, draws, world.device) for one in passes))
            self.deepspeed.backward(out.loss * scale)
            self._update_weights()
            sums += torch.stack([out.loss.detach().double(), out.count.double(), out.correct.double()])

    def _update_weights(self) -> None:
        """Let DeepSpeed update the weights, which it does after the last micro-batch of a step."""
        try:
            self.deepspeed.step()
        except Exception as error:  # DeepSpeed raises a plain Exception
            if "loss scale already at minimum" not in str(error):
                raise
            problem = "gradients overflow in fp16 even at the smallest loss scale"
            raise make_divergence_error(self.stage, problem, ", or bf16 in the DeepSpeed config") from None


def make_divergence_error(stage: str, problem: str, other_fix: str = "") -> UserError:
    """Make the error of a training that diverges."""
    fix = f"use a lower {stage}.learning_rate{other_fix}"
    return UserError(f"{stage}: {problem}; the last checkpoint is intact; fix: {fix}")


def start_engine(
    name: StageName,
    stage: Stage,
    task: PretrainTask | SpanTask | FinetuneTask,
    settings: DeepSpeedSettings,
    world: World,
    seed: int,
    universal: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
) -> StageEngine:
    """Start the DeepSpeed engine of a stage around its task.

    universal: whether the checkpoint to load has DeepSpeed's universal format; optimizer: used instead of the
    stage's optimizer; its parameter groups hold the learning rate.

    Raises UserError if the settings of batches or of clipping contradict each other.
    """
    import deepspeed

    # DeepSpeed 0.19 uses names that torch 2.13 deprecates, which gives two warnings per rank that no user can avoid.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    # DeepSpeed's default buckets hold 500 million numbers; these hold the model, rounded up to the buffers' alignment.
    weights = sum(parameter.numel() for parameter in task.parameters())
    buckets = dict.fromkeys(("reduce_bucket_size", "allgather_bucket_size"), -(-weights // 1024) * 1024)
    settings = settings.clip(stage.gradient_clipping)
    plan = settings.plan(stage.global_batch, world.ranks)
    values = {
        **settings.values,
        "zero_optimization": {**buckets, **settings.values.get("zero_optimization", {})},
        "checkpoint": {"load_universal": universal},
        # By default DeepSpeed waits for the GPU twice per micro-batch to measure a throughput that is not shown.
        "timers": settings.values.get("timers", {"throughput": {"enabled": False}}),
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.micro_batches,
    }
    values.pop("train_batch_size", None)
    values = drop_unknown_switches(values)
    optimizer = optimizer or make_optimizer(name, stage, task)
    # At ZeRO 3 the weights of a module are here only while that module runs.
    task.may_cut = settings.zero_stage < 3
    if task.may_cut and world.device.type != "cpu":
        fuse_projections(task.model)
    # Copied before the engine rounds or shards them.
    frozen = {n: p.detach().cpu().clone() for n, p in task.model.named_parameters() if not p.requires_grad}
    engine, *_ = deepspeed.initialize(
        model=task.to(world.device), optimizer=optimizer, config=values, dist_init_required=False
    )
    set_group_timeouts()
    return StageEngine(name, task, engine, LearningRate(optimizer, stage), plan, world, seed, frozen)
