"""Training loop of one stage: steps, evaluations, early stopping, checkpoints.

All random numbers of a step are functions of (seed, stage, epoch, step). So a stage that was killed and resumes from a
checkpoint ends with the same weights as an uninterrupted one.
"""

import math

from model.config import Stage
from model.distributed.stop_signals import StopRequest
from model.training.checkpointing.checkpoints import Checkpoints, StageState
from model.training.engine import make_divergence_error
from model.training.evaluate import StopRequestError, evaluate
from model.training.prepare import TrainingRun
from model.training.throughput import Meter
from pipeline.runtime.progress import Update, emit

READ_EVERY = 20
"""Steps between two readings of the running sums, as each reading waits for the device."""
VALIDATION_METRIC = {"pretrain": "accuracy", "finetune": "Pearson"}
"""Metric of each stage that determines learning rate, early stopping and best weights."""


class StageLoop:
    """Training loop of one stage, from its state to its end or to a stop request."""

    def __init__(
        self, run: TrainingRun, settings: Stage, meter: Meter, checkpoints: Checkpoints, stop: StopRequest, show: Update
    ) -> None:
        self._run, self._settings, self._meter, self._stop, self._show = run, settings, meter, stop, show
        self._checkpoints, self._engine = checkpoints, checkpoints.engine
        self._last_step = math.ceil(settings.max_epochs * len(meter.stream))
        self._interval = max(round(settings.evaluate_every * len(meter.stream)), 1)

    def run(self, state: StageState) -> None:
        """Train until the last epoch ends, validation stops improving, or a stop is requested.

        `state` is updated; its `ended` stays false after a stop request. Raises UserError if the training diverges or
        the disk is full.
        """
        if state.step:
            self._show(state.step, self._last_step, f"resumes from the checkpoint of step {state.step:,}")
            self._checkpoints.keep_best(state)
            if self._evaluation_is_due(state) and not self._evaluate(state):  # the stop came just before an evaluation
                return
        while not state.ended:
            for step in self._meter.steps(state.epoch, state.consumed):
                self._engine.rate.before_step(state.step, self._last_step)
                self._engine.train_step(step, self._meter.sums)
                self._meter.add_step(step)
                state.step, state.consumed = state.step + 1, step.consumed
                if not self._after_step(state):
                    return
            state.epoch, state.consumed = state.epoch + 1, 0

    def _after_step(self, state: StageState) -> bool:
        """Read the sums, evaluate and save if these are due. Returns False if the stage ends or stops here."""
        reads, evaluates = state.step % READ_EVERY == 0, self._evaluation_is_due(state)
        if reads or evaluates:
            self._meter.read(state, self._last_step)
        note = self._meter.glance()
        continues = not evaluates or self._evaluate(state)
        self._show(state.step, self._last_step, note)
        if evaluates:
            return continues
        # On a GPU the exchange of stop requests waits for the device, so it happens only together with a reading.
        if (reads or self._engine.world.device.type == "cpu") and self._stop.is_requested():
            if not reads:
                self._meter.read(state, self._last_step)
            self._checkpoints.save(state)
            return False
        if reads and self._checkpoints.is_due():
            self._checkpoints.save(state)
            self._meter.restart()
        return True

    def _evaluation_is_due(self, state: StageState) -> bool:
        at_interval = state.step % self._interval == 0 or state.step >= self._last_step
        return state.evaluated < state.step and at_interval

    def _evaluate(self, state: StageState) -> bool:
        """Evaluate the validation split, then update learning rate and early stopping, save, and keep the best weights.

        Returns False if the stage ends here. Also returns False after a stop request: the next start then evaluates.
        """
        engine, name = self._engine, self._engine.stage
        split, micro_batch = f"{name}/valid", engine.plan.micro_batch
        try:
            evaluation = evaluate(engine.deepspeed, split, self._run, micro_batch, self._stop.is_requested)
        except StopRequestError:
            self._checkpoints.save(state)
            return False
        metric, values = evaluation.metric, evaluation.values
        if not math.isfinite(values["loss"]):
            raise make_divergence_error(
                name, f"the validation loss is {values['loss']} at step {state.step}, not finite"
            )
        engine.rate.after_evaluation(metric)
        state.evaluated = state.step
        if state.best is None or metric > state.best:
            state.best, state.best_step, state.waited = metric, state.step, 0
        else:
            state.waited += 1
        state.ended = state.waited >= self._settings.early_stop or state.step >= self._last_step
        state.history.append({"step": state.step, **values})
        if engine.world.is_rank0:
            best = "the best so far" if state.best_step == state.step else f"best {state.best:.4f}"
            emit(f"{name}: valid {VALIDATION_METRIC[name]} {metric:.4f} at step {state.step:,}, {best}")
        self._meter.log(state, {f"valid_{metric_name}": value for metric_name, value in values.items()})
        self._checkpoints.save(state)
        self._checkpoints.keep_best(state)
        self._meter.restart()
        return not state.ended
