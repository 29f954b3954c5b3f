"""What the training loop saves: a checkpoint of engine, schedule and state; then the best model."""

import time

from model.distributed.process_group import broadcast, run_on_rank0
from model.training.checkpointing.best_model import BestModel
from model.training.checkpointing.checkpoints import Checkpoint, Checkpoints, StageState
from model.training.checkpointing.hf_export import Exporter
from model.training.engine import StageEngine
from pipeline.runtime.progress import emit


class StageStore:
    """Saves one stage. All ranks call its methods. minutes: time between two checkpoints without an evaluation."""

    def __init__(
        self, engine: StageEngine, checkpoints: Checkpoints, best: BestModel, exporter: Exporter, minutes: float
    ) -> None:
        self._engine, self._checkpoints, self._best, self._exporter = engine, checkpoints, best, exporter
        self._seconds = 60 * minutes
        self._saved = time.monotonic()

    def load(self, found: Checkpoint | None) -> StageState:
        """Load a checkpoint into engine and schedule; without one, return a fresh state."""
        if found is None:
            return StageState()
        state = self._checkpoints.load(found, self._engine.deepspeed)
        self._engine.rate.load(state.learning_rate, state.plateau)
        return state

    def save(self, state: StageState) -> None:
        """Write a checkpoint. Raises UserError where the disk is full."""
        engine = self._engine
        state.plateau, state.learning_rate = engine.rate.plateau_state(), engine.rate.rate
        self._checkpoints.save(engine.deepspeed, state, lambda folder: self._exporter.export(engine, folder))
        self._saved = time.monotonic()

    def keep_best(self, state: StageState) -> None:
        """Copy the model of the best checkpoint into the run's directory, where it is not there yet."""
        name = self._engine.stage
        run_on_rank0(
            self._engine.world, lambda: self._best.update(state.progress, lambda line: emit(f"{name}: {line}"))
        )

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint: the clock of rank 0 decides for all."""
        return bool(broadcast(time.monotonic() - self._saved > self._seconds))
