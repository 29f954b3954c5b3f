"""The training loop of one stage: steps, evaluations, early stopping, checkpoints.

Everything random in a step is a function of (seed, stage, epoch, step). So a stage that was killed and resumes from a
checkpoint ends with the same weights as one that was not.
"""

import math

from model.config import Stage
from model.distributed.stop_signals import StopRequest
from model.training.checkpointing.checkpoints import StageState
from model.training.checkpointing.store import StageStore
from model.training.data import RankData
from model.training.engine import StageEngine
from model.training.evaluate import Evaluation, evaluate
from model.training.throughput import Meter
from pipeline.errors import UserError
from pipeline.runtime.progress import Update

READ_EVERY = 20
"""Steps between two readings of the running sums: each waits for the device."""
VALIDATION_METRIC = {"pretrain": "accuracy", "finetune": "Pearson"}
"""Metric of each stage that decides on learning rate, early stopping and the best weights."""


class StageLoop:
    """One stage from its state to its end, or to a stop request."""

    def __init__(
        self,
        engine: StageEngine,
        settings: Stage,
        data: RankData,
        meter: Meter,
        store: StageStore,
        stop: StopRequest,
        show: Update,
    ) -> None:
        self._engine, self._settings, self._data = engine, settings, data
        self._meter, self._store, self._stop, self._show = meter, store, stop, show
        self._last_step = math.ceil(settings.max_epochs * meter.steps_per_epoch)
        self._interval = max(round(settings.evaluate_every * meter.steps_per_epoch), 1)
        self._valid = ""

    def run(self, state: StageState) -> None:
        """Train until the epochs are through, validation has stopped improving, or a stop is requested.

        `state` is updated; it has not `ended` where a stop was requested.
        """
        if state.step:
            self._show(state.step, self._last_step, f"resumes from the checkpoint of step {state.step:,}")
            self._store.keep_best(state)
            if self._evaluation_is_due(state) and not self._evaluate(state):  # it was stopped right before
                return
        while not state.ended:
            for step in self._meter.steps(state.epoch, state.consumed):
                self._engine.rate.before_step(state.step)
                self._engine.train_step(step, self._meter.sums)
                self._meter.add_step(step)
                state.step, state.consumed = state.step + 1, step.consumed
                if not self._after_step(state):
                    return
            state.epoch, state.consumed = state.epoch + 1, 0

    def _after_step(self, state: StageState) -> bool:
        """Read the sums, evaluate and save where that is due. False where the stage ends or stops here."""
        reads, evaluates = state.step % READ_EVERY == 0, self._evaluation_is_due(state)
        if reads or evaluates:
            self._meter.read(state, self._last_step)
        goes_on = not evaluates or self._evaluate(state)
        self._show(state.step, self._last_step, self._meter.line + self._valid)
        if evaluates:
            return goes_on
        # On a GPU the question waits for the device, so it is asked where the sums are read.
        if (reads or self._engine.world.device.type == "cpu") and self._stop.agreed():
            if not reads:
                self._meter.read(state, self._last_step)
            self._store.save(state)
            return False
        if reads and self._store.is_due():
            self._store.save(state)
            self._meter.restart()
        return True

    def _evaluation_is_due(self, state: StageState) -> bool:
        at_interval = state.step % self._interval == 0 or state.step >= self._last_step
        return state.evaluated < state.step and at_interval

    def _evaluate(self, state: StageState) -> bool:
        """Validate, adapt the learning rate, count towards early stopping; save, and keep the best weights.

        False where the stage ends here, or where a stop is requested: then the next start evaluates.
        """
        name = self._engine.stage
        found = evaluate(
            self._engine.deepspeed, f"{name}/valid", self._data, self._engine.plan.micro_batch, self._stop.agreed
        )
        if found is None:
            self._store.save(state)
            return False
        if not math.isfinite(found.values["loss"]):
            raise UserError(
                f"{name}: the validation loss is {found.values['loss']} at step {state.step}, not finite; the last "
                f"checkpoint is intact; fix: a lower {name}.learning_rate"
            )
        self._engine.rate.after_evaluation(found.metric)
        self._record(state, found)
        self._valid = f", valid {VALIDATION_METRIC[name]} {found.metric:.4f}"
        self._meter.log(state, {f"valid_{metric}": value for metric, value in found.values.items()})
        self._store.save(state)
        self._store.keep_best(state)
        self._meter.restart()
        return not state.ended

    def _record(self, state: StageState, found: Evaluation) -> None:
        """Enter an evaluation into the state."""
        state.evaluated = state.step
        if state.best is None or found.metric > state.best:
            state.best, state.best_step, state.waited = found.metric, state.step, 0
        else:
            state.waited += 1
        state.ended = state.waited >= self._settings.early_stop or state.step >= self._last_step
        state.history.append({"step": state.step, **found.values})
