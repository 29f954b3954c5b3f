"""The training loop of one stage: steps, evaluations, plateau, early stopping, checkpoints.

Everything random in a step comes from (seed, stage, epoch, step), so a stage that was killed and goes on from a
checkpoint ends with the same weights as one that was not.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.checkpoints import StageState, resume, save_checkpoint
from model.distributed import World, from_leader, sums_over_ranks
from model.engine import BatchPlan
from model.evaluate import EvaluationData, evaluate
from model.seeds import generator, seed_of
from model.tasks import to_device
from model.tracking import Tracker
from pipeline.config import Run, Stage
from pipeline.errors import UserError
from pipeline.progress import progress
from pipeline.stream import Part, Step, Stream

READ_EVERY = 20
"""Steps between two readings of the running sums: each waits for the device."""

STEERED_BY = {"pretrain": "accuracy", "finetune": "Pearson"}
"""The validation metric of each stage."""


@dataclass(frozen=True)
class StageRun:
    """What a stage runs with. save_best is called by every rank when validation improved."""

    name: str
    settings: Stage
    run: Run
    engine: Any
    optimizer: torch.optim.Optimizer
    plan: BatchPlan
    world: World
    data: EvaluationData
    tracker: Tracker
    checkpoints: Path
    save_best: Callable[[], None]

    def stream(self) -> Stream:
        """The training split, this rank's part."""
        part = Part(self.world.rank, self.world.ranks, self.plan.micro_batches)
        split = f"{self.name}/train"
        return Stream(
            self.data.shards,
            self.data.index,
            split,
            self.settings.global_batch,
            part,
            self.run.seed,
            reverse_complement=self.settings.reverse_complement,
            agree=self.data.agree,
        )


def train_stage(stage: StageRun) -> StageState:
    """Train until the epochs are through or validation has stopped improving. Goes on from the last checkpoint."""
    stream = stage.stream()
    scheduler = _plateau(stage)
    state = resume(stage.engine, stage.checkpoints, scheduler, stage.world)
    stage.engine.train()  # from_pretrained leaves a model in evaluation mode, without dropout
    stage.tracker.forget_after(stage.name, state.step)
    last_step = math.ceil(stage.settings.max_epochs * len(stream))
    interval = max(round(stage.settings.evaluate_every * len(stream)), 1)
    meter = _Meter(stage)
    saved = time.monotonic()
    with progress(stage.name, "steps", quiet=not stage.world.leads) as show:
        if state.step:
            show(state.step, last_step, f"goes on from the checkpoint of step {state.step:,}")
        while not state.ended and state.step < last_step:
            for step in stream.epoch(state.epoch, state.consumed):
                _train_step(stage, step, meter)
                state.step += 1
                state.consumed = step.consumed
                at_end = state.step >= last_step
                evaluating = state.step % interval == 0 or at_end
                if state.step % READ_EVERY == 0 or evaluating:
                    meter.read(state, stream)
                show(state.step, last_step, meter.line)
                if evaluating:
                    _evaluate(stage, state, scheduler, stream, meter)
                    state.ended |= at_end
                    meter.restart()
                if evaluating or (state.step % READ_EVERY == 0 and _is_time(stage, saved)):
                    _save(stage, state, scheduler)
                    saved = time.monotonic()
                if state.ended:
                    break
            else:
                state.epoch, state.consumed = state.epoch + 1, 0
    return state


def _train_step(stage: StageRun, step: Step, meter: "_Meter") -> None:
    """One optimizer step over this rank's micro-batches; the loss is that of the whole global batch."""
    engine, world = stage.engine, stage.world
    place = (stage.run.seed, stage.name, step.epoch, step.number)
    torch.manual_seed(seed_of(*place, world.rank))  # dropout
    draws = engine.module.draws(step.micro_batches[0], generator(world.device, *place))
    normaliser = engine.module.normaliser(step.micro_batches[0], draws)
    # DeepSpeed divides by the micro-batches and averages over the ranks; this takes both back.
    scale = world.ranks * stage.plan.micro_batches / normaliser
    for batch in step.micro_batches:
        sums = engine(to_device(batch, draws, world.device))
        engine.backward(sums.loss * scale)
        engine.step()
        meter.add(sums.loss.detach(), sums.count, sums.correct)
    meter.promoters += step.micro_batches[0].global_rows


def _evaluate(
    stage: StageRun,
    state: StageState,
    scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau,
    stream: Stream,
    meter: "_Meter",
) -> None:
    """Validate, steer the learning rate, keep the best weights, count towards early stopping."""
    result = evaluate(stage.engine, f"{stage.name}/valid", stage.data)
    if not math.isfinite(result.values["loss"]):
        raise UserError(
            f"{stage.name}: the validation loss is {result.values['loss']} at step {state.step}; "
            f"the last checkpoint is whole. Try a lower {stage.name}.learning_rate"
        )
    scheduler.step(result.metric)
    if state.best is None or result.metric > state.best:
        state.best, state.waited = result.metric, 0
        stage.save_best()
    else:
        state.waited += 1
        state.ended = state.waited >= stage.settings.early_stop
    values = {f"valid_{name}": value for name, value in result.values.items()}
    meter.valid = f", valid {STEERED_BY[stage.name]} {result.metric:.4f}"
    stage.tracker.log(stage.name, state.step, _epochs(state, stream), values)


def _save(stage: StageRun, state: StageState, scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau) -> None:
    state.plateau = scheduler.state_dict()
    save_checkpoint(stage.engine, stage.checkpoints, state, stage.run.keep_checkpoints, stage.world)


def _is_time(stage: StageRun, saved: float) -> bool:
    """The leading rank's clock decides for all."""
    return bool(from_leader(time.monotonic() - saved > 60 * stage.run.checkpoint_minutes))


def _plateau(stage: StageRun) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    settings = stage.settings.plateau
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        stage.optimizer,
        mode="max",
        factor=settings.factor,
        patience=settings.patience,
        threshold=settings.threshold,
        min_lr=settings.min_lr,
    )


def _epochs(state: StageState, stream: Stream) -> float:
    return state.epoch + state.consumed / stream.rows


class _Meter:
    """Running sums on the device, read now and then; what was read goes to the tracker and the progress line."""

    def __init__(self, stage: StageRun) -> None:
        self.stage = stage
        self.promoters = 0
        self.line = ""
        self.valid = ""
        self._began = time.monotonic()
        self._sums = torch.zeros(3, dtype=torch.float64, device=stage.world.device)

    def add(self, loss: torch.Tensor, count: torch.Tensor, correct: torch.Tensor) -> None:
        self._sums += torch.stack([loss.double(), count.double(), correct.double()])

    def read(self, state: StageState, stream: Stream) -> None:
        """All ranks call this. Raises UserError where the loss is no number any more."""
        stage = self.stage
        loss, count, correct = sums_over_ranks(*self._sums)
        seconds = time.monotonic() - self._began
        values = {
            "loss": loss / max(count, 1.0),
            "learning_rate": stage.optimizer.param_groups[0]["lr"],
            "promoters_per_second": self.promoters / seconds,
        }
        if stage.name == "pretrain":
            values["accuracy"] = correct / max(count, 1.0)
        if not math.isfinite(loss):
            raise UserError(
                f"{stage.name}: the loss is {loss} at step {state.step}; the last checkpoint is whole. "
                f"Try a lower {stage.name}.learning_rate"
            )
        stage.tracker.log(stage.name, state.step, _epochs(state, stream), values)
        self.line = f"loss {values['loss']:.4f}, {values['promoters_per_second']:,.0f} promoters/s{self.valid}"
        self.restart()

    def restart(self) -> None:
        """Begin anew, as after an evaluation, which is no training time."""
        self.promoters, self._began = 0, time.monotonic()
        self._sums.zero_()
