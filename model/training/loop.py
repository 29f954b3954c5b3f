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

from model.bert.objectives import to_device
from model.bert.rng import generator, seed_of
from model.config import Run, Stage
from model.distributed.process_group import World, broadcast, run_on_rank0
from model.distributed.stop_signals import StopRequest
from model.runs.metric_log import Tracker
from model.training.best_model import BestModel
from model.training.checkpoints import Checkpoints, Found, StageState
from model.training.engine import BatchPlan, loss_scale
from model.training.evaluate import EvaluationData, evaluate
from model.training.throughput import Meter, Speed
from pipeline.errors import UserError
from pipeline.runtime.progress import Update, progress, tell
from pipeline.stream.stream import RankSlice, ShardStream, Step

READ_EVERY = 20
"""Steps between two readings of the running sums: each waits for the device."""

STEERED_BY = {"pretrain": "accuracy", "finetune": "Pearson"}
"""The validation metric of each stage."""


@dataclass(frozen=True)
class StageRun:
    """What a stage runs with. export writes the model's weights as a Hugging Face folder; every rank calls it."""

    name: str
    settings: Stage
    run: Run
    engine: Any
    optimizer: torch.optim.Optimizer
    plan: BatchPlan
    world: World
    data: EvaluationData
    tracker: Tracker
    checkpoints: Checkpoints
    found: Found | None
    best: BestModel
    export: Callable[[Path], None]
    speed: Speed
    stop: StopRequest

    def stream(self) -> ShardStream:
        """The training split, this rank's part."""
        part = RankSlice(self.world.rank, self.world.ranks, self.plan.micro_batches)
        split = f"{self.name}/train"
        return ShardStream(
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
    """Train until the epochs are through, validation has stopped improving, or a stop is asked for.

    Goes on from the checkpoint that was found. The state that is returned has not `ended` where the stage was stopped.
    """
    scheduler = _plateau(stage)
    state = stage.checkpoints.load(stage.found, stage.engine, scheduler)
    stage.engine.train()  # from_pretrained leaves a model in evaluation mode, without dropout
    stage.tracker.begin(stage.name, state.step)
    with progress(stage.name, "steps", quiet=not stage.world.is_rank0) as show:
        _Loop(stage, state, scheduler, show).run()
    return state


class _Loop:
    """One stage from where its state stands to where it ends or is stopped."""

    def __init__(
        self,
        stage: StageRun,
        state: StageState,
        scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau,
        show: Update,
    ) -> None:
        self.stage, self.state, self.scheduler, self.show = stage, state, scheduler, show
        stream = stage.stream()
        self.last_step = math.ceil(stage.settings.max_epochs * len(stream))
        self.interval = max(round(stage.settings.evaluate_every * len(stream)), 1)
        self.meter = Meter(stage.name, stage.world, stage.tracker, stream, stage.speed)
        self.rate = float(stage.optimizer.param_groups[0]["lr"])
        self.valid = ""
        self.saved = time.monotonic()

    def run(self) -> None:
        """Each step is taken, then what is due after it is done."""
        state = self.state
        if state.step:
            self.show(state.step, self.last_step, f"goes on from the checkpoint of step {state.step:,}")
            self._keep_best()
            if self._evaluation_is_due() and not self._evaluate():  # it was stopped right before
                return
        while not state.ended:
            for step in self.meter.steps(state):
                self._warm_up()
                train_step(self.stage, step, self.meter)
                state.step, state.consumed = state.step + 1, step.consumed
                if not self._go_on():
                    return
            state.epoch, state.consumed = state.epoch + 1, 0

    def _warm_up(self) -> None:
        """Set this step's learning rate: the plateau's, `rate`, after the first steps; before, a part of it."""
        steps = self.stage.settings.warm_up
        if self.state.step <= steps:
            self._set_rate(self.rate * min((self.state.step + 1) / max(steps, 1), 1.0))

    def _set_rate(self, rate: float) -> None:
        for group in self.stage.optimizer.param_groups:
            group["lr"] = rate

    def _go_on(self) -> bool:
        """After a step: read, evaluate, save as it is time to. False where the stage ends here."""
        state, reading = self.state, self.state.step % READ_EVERY == 0
        if reading or self._evaluation_is_due():
            self._read()
        if self._evaluation_is_due():
            goes_on = self._evaluate()
            self.show(state.step, self.last_step, self.meter.line + self.valid)
            return goes_on
        self.show(state.step, self.last_step, self.meter.line + self.valid)
        # On a GPU to ask waits for the device, so it is done where the sums are read.
        if (reading or self.stage.world.device.type == "cpu") and self.stage.stop.agreed():
            if not reading:
                self._read()
            self._save()
            return False
        if reading and self._is_time():
            self._save()
            self.meter.restart()
        return True

    def _evaluation_is_due(self) -> bool:
        state = self.state
        return state.evaluated < state.step and (state.step % self.interval == 0 or state.step >= self.last_step)

    def _evaluate(self) -> bool:
        """Validate, steer the learning rate, count towards early stopping; then save, and keep the best weights.

        False where the stage ends here: it is through, or a stop was asked for, and the evaluation waits for the
        next start.
        """
        stage, state = self.stage, self.state
        result = evaluate(stage.engine, f"{stage.name}/valid", stage.data, stage.stop.agreed)
        if result is None:
            self._save()
            return False
        if not math.isfinite(result.values["loss"]):
            raise UserError(
                f"{stage.name}: the validation loss is {result.values['loss']} at step {state.step}; "
                f"the last checkpoint is whole. Try a lower {stage.name}.learning_rate"
            )
        self._set_rate(self.rate)  # also while it is warmed up the plateau lowers the whole of it
        self.scheduler.step(result.metric)
        self.rate = float(stage.optimizer.param_groups[0]["lr"])
        state.evaluated = state.step
        if state.best is None or result.metric > state.best:
            state.best, state.best_step, state.waited = result.metric, state.step, 0
        else:
            state.waited += 1
        state.ended = state.waited >= stage.settings.early_stop or state.step >= self.last_step
        self.valid = f", valid {STEERED_BY[stage.name]} {result.metric:.4f}"
        stage.tracker.log(
            stage.name, state.step, self.meter.epochs(state), {f"valid_{k}": v for k, v in result.values.items()}
        )
        state.history.append({"step": state.step, **result.values})
        self._save()
        self._keep_best()
        self.meter.restart()
        return not state.ended

    def _read(self) -> None:
        engine = self.stage.engine
        rate = self.stage.optimizer.param_groups[0]["lr"]
        self.meter.read(self.state, self.last_step, rate, int(engine.skipped_steps), loss_scale(engine))

    def _save(self) -> None:
        self.state.plateau = self.scheduler.state_dict()
        self.state.learning_rate = self.rate
        self.stage.checkpoints.save(self.stage.engine, self.state, self.stage.export)
        self.saved = time.monotonic()

    def _keep_best(self) -> None:
        stage, standing = self.stage, self.state.standing
        run_on_rank0(stage.world, lambda: stage.best.update(standing, lambda line: tell(f"{stage.name}: {line}")))

    def _is_time(self) -> bool:
        """The clock of rank 0 decides for all."""
        return bool(broadcast(time.monotonic() - self.saved > 60 * self.stage.run.checkpoint_minutes))


def train_step(stage: StageRun, step: Step, meter: Meter) -> None:
    """One optimizer step over this rank's micro-batches; the loss is that of the whole global batch."""
    engine, world = stage.engine, stage.world
    place = (stage.run.seed, stage.name, step.epoch, step.number)
    torch.manual_seed(seed_of(*place, world.rank))  # dropout
    width = engine.module.width(step.micro_batches[0], world.device)
    draws = engine.module.draws(step.micro_batches[0], generator(world.device, *place))
    normaliser = engine.module.normaliser(step.micro_batches[0], draws)
    # DeepSpeed divides by the micro-batches and averages over the ranks; this takes both back.
    scale = world.ranks * stage.plan.micro_batches / normaliser
    for batch in step.micro_batches:
        sums = engine(to_device(batch, width, draws, world.device))
        engine.backward(sums.loss * scale)
        _apply(stage)
        meter.add(sums.loss.detach(), sums.count, sums.correct)
    meter.add_step(step)


def _apply(stage: StageRun) -> None:
    """The optimizer's step, at the last micro-batch. Raises UserError where fp16 has come to its end."""
    try:
        stage.engine.step()
    except Exception as error:  # DeepSpeed raises no narrower one
        if "loss scale already at minimum" not in str(error):
            raise
        raise UserError(
            f"{stage.name}: gradients overflow in fp16 even at the smallest loss scale; the last checkpoint is whole. "
            f"Try a lower {stage.name}.learning_rate, or bf16 in the DeepSpeed config"
        ) from None


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
