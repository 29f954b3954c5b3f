"""Checkpoints of a stage: find the last intact one, load, save.

    checkpoints/STAGE/step-000000120/  DeepSpeed's files; huggingface/, the model for transformers; manifest.json
    checkpoints/STAGE/latest           name of the last one, where DeepSpeed's own tools look for it

A checkpoint is written under a hidden name, and renamed when it is complete.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from model.artifacts.manifest import Layout, StageProgress, find_corruption, read_manifest, write_manifest
from model.config import Run
from model.distributed.process_group import all_gather, broadcast, run_on_rank0
from model.training.checkpointing.best_model import HUGGING_FACE, BestModel, newest_first, tag_of
from model.training.checkpointing.disk import report_disk_error
from model.training.checkpointing.reshard import UNIVERSAL, check_convertible, convert
from model.training.engine import StageEngine
from pipeline.errors import UserError
from pipeline.io.atomic import write_text
from pipeline.runtime.progress import emit


@dataclass
class StageState:
    """State of a stage; with the engine's own state, all that a resume needs.

    step: optimizer steps taken; epoch: begun now; consumed: its promoters read, over all ranks; evaluated: last step
    with an evaluation; best, best_step: highest validation metric, and its step; waited: evaluations since; history:
    metrics of all evaluations; learning_rate, plateau: state of the schedule; seconds: training time over all starts;
    ended: no steps are left. Random numbers are functions of (seed, stage, epoch, step): no generator state is kept.
    """

    step: int = 0
    epoch: int = 0
    consumed: int = 0
    evaluated: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    learning_rate: float = 0.0
    plateau: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    ended: bool = False

    @property
    def progress(self) -> StageProgress:
        """Return what manifests record of it."""
        at_best = next((dict(values) for values in self.history if values["step"] == self.best_step), {})
        at_best.pop("step", None)
        return StageProgress(self.step, self.best, self.best_step, self.seconds, self.ended, at_best)


def find_checkpoint(best: BestModel, layout: Layout, report: Callable[[str], None]) -> Path | None:
    """Find the last intact checkpoint of a stage, converted to a layout if needed. None if there is no checkpoint.

    report: receives a line for each corrupt checkpoint and for a conversion. Raises UserError if checkpoints exist but
    none is intact, or if the last one belongs to another run.
    """
    folder = best.checkpoints
    for leftover in (folder / UNIVERSAL, *folder.glob(".*.partial")):
        shutil.rmtree(leftover, ignore_errors=True)
    existing = newest_first(folder)
    for path in existing:
        problem, manifest = find_corruption(path), read_manifest(path)
        if manifest is None or manifest.layout is None or problem:
            report(f"{path} is corrupt; skipped: {problem}")
            continue
        differing = [name for name, key in best.owner.items() if manifest.owner.get(name) != key]
        if differing:
            raise UserError(
                f"{path} belongs to another run (other {', '.join(differing)}); fix: remove it, or give this run "
                "another name (run.name=...)"
            )
        written = manifest.layout
        # ZeRO 0 keeps the whole state in one file, which any number of ranks can read.
        if written == layout or (written.zero_stage == 0 and written == replace(layout, ranks=written.ranks)):
            return path
        check_convertible(path, written, layout)
        report(f"{path} was written by {written}: converting it for {layout}")
        return convert(path)
    if existing:
        raise UserError(f"{folder}: no checkpoint is intact; fix: remove the folder to restart the stage")
    return None


@dataclass
class Checkpoints:
    """Saves and loads one stage. All ranks call its methods.

    layout, settings: of this run; export: writes the Hugging Face directory of a checkpoint, called by every rank.
    """

    engine: StageEngine
    best: BestModel
    layout: Layout
    settings: Run
    export: Callable[[Path], None]
    saved_s: float = field(default_factory=time.monotonic, init=False)
    """Time of the last checkpoint, on the monotonic clock."""

    def load(self, checkpoint: Path | None) -> StageState:
        """Load a checkpoint into the engine and its schedule. Returns the stage's state, a fresh one for None."""
        if checkpoint is None:
            return StageState()
        path, client_state = self.engine.deepspeed.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
        if None in all_gather(path):
            raise UserError(
                f"{checkpoint}: not every process can read it; a run on several hosts needs a shared run.path"
            )
        if checkpoint.parent.name == UNIVERSAL and self.engine.world.is_rank0:
            shutil.rmtree(checkpoint.parent, ignore_errors=True)
        state = StageState(**client_state["stage_state"])
        self.engine.rate.load(state.learning_rate, state.plateau)
        return state

    def save(self, state: StageState) -> None:
        """Write a checkpoint; then keep the last ones and the best one. Raises UserError if the disk is full."""
        rate = self.engine.rate
        state.plateau, state.learning_rate = rate.plateau.state_dict(), rate.rate
        folder, tag = self.best.checkpoints, tag_of(state.step)
        work, target = folder / f".{tag}.partial", folder / tag
        intact = "the checkpoint before is intact" if newest_first(folder) else "there is none before it"
        with report_disk_error(target, "the checkpoint cannot be written", intact, work):
            self.export(work / HUGGING_FACE)
            client_state = {"stage_state": asdict(state)}
            self.engine.deepspeed.save_checkpoint(str(folder), work.name, client_state, save_latest=False)
            if self.engine.world.is_rank0:
                write_manifest(work, self.best.owner, self.layout, state.progress)
                shutil.rmtree(target, ignore_errors=True)  # of the same step, from before a resume
                work.rename(target)
                write_text(folder / "latest", tag)
                existing = newest_first(folder)
                kept = {target, folder / tag_of(state.best_step), *existing[: self.settings.keep_checkpoints]}
                for path in set(existing) - kept:
                    shutil.rmtree(path, ignore_errors=True)
        self.saved_s = time.monotonic()

    def keep_best(self, state: StageState) -> None:
        """Copy the model of the best checkpoint into the run's directory, unless it holds that model."""
        name = self.engine.stage
        run_on_rank0(self.engine.world, lambda: self.best.update(state.progress, lambda line: emit(f"{name}: {line}")))

    def is_due(self) -> bool:
        """Return whether it is time for a checkpoint: the clock of rank 0 decides for all."""
        return bool(broadcast(time.monotonic() - self.saved_s > 60 * self.settings.checkpoint_minutes))
