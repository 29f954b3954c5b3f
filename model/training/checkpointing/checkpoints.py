"""Checkpoints of a stage: find the last intact one, load, save.

    checkpoints/STAGE/step-000000120/  DeepSpeed's files; huggingface/, the model for transformers; manifest.json
    checkpoints/STAGE/latest           name of the last checkpoint, for DeepSpeed's own tools

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
from model.training.checkpointing.best_model import HUGGING_FACE, BestModel, format_tag, list_checkpoints
from model.training.checkpointing.disk import report_disk_error
from model.training.checkpointing.reshard import UNIVERSAL, check_convertible, convert, correct_loading
from model.training.engine import StageEngine
from pipeline.errors import UserError
from pipeline.io.atomic import write_text
from pipeline.runtime.progress import emit


@dataclass
class StageState:
    """State of a stage, from which it can resume together with the engine's own state.

    step: optimizer steps taken; epoch: current epoch, from 0; consumed: promoters of this epoch read by all ranks;
    evaluated: last step with an evaluation; best, best_step: highest validation metric and its step; waited:
    evaluations since then; history: metrics of all evaluations; learning_rate, plateau: state of the schedule; seconds:
    training time over all starts; ended: whether no steps are left; lanes: of the order of this epoch; 1 before there
    were lanes.

    Random numbers are functions of (seed, stage, epoch, step), so no generator state is saved.
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
    lanes: int = 1

    def adopt_order(self, lanes: int, rows: int) -> bool:
        """Adopt the order of a stream with these lanes and promoters. Returns whether the epoch must start again."""
        restarts = lanes != self.lanes and 0 < self.consumed < rows
        self.lanes, self.consumed = lanes, 0 if restarts else self.consumed
        return restarts

    @property
    def progress(self) -> StageProgress:
        """Return the progress of the stage, as manifests record it."""
        at_best = next((dict(values) for values in self.history if values["step"] == self.best_step), {})
        at_best.pop("step", None)
        return StageProgress(self.step, self.best, self.best_step, self.seconds, self.ended, at_best)


def find_checkpoint(best: BestModel, layout: Layout, report: Callable[[str], None]) -> Path | None:
    """Find the last intact checkpoint of a stage, and convert it to a layout if needed. Returns None without any.

    report: receives a line per corrupt checkpoint and per conversion. Raises UserError if no existing checkpoint is
    intact, or if the last one belongs to another run or cannot be converted.
    """
    folder = best.checkpoints
    for leftover in (folder / UNIVERSAL, *folder.glob(".*.partial")):
        shutil.rmtree(leftover, ignore_errors=True)
    existing = list_checkpoints(folder)
    for path in existing:
        problem, manifest = find_corruption(path), read_manifest(path)
        if manifest is None or manifest.layout is None or problem:
            report(f"{path} is corrupt; skipped: {problem}")
            continue
        differences = [name for name, key in best.owner.items() if manifest.owner.get(name) != key]
        if differences:
            raise UserError(
                f"{path} belongs to another run (other {', '.join(differences)}); fix: remove it, or give this run "
                "another name (run.name=...)"
            )
        source = manifest.layout
        # ZeRO 0 keeps the whole state in one file, which any number of ranks can read.
        if source == layout or (source.zero_stage == 0 and source == replace(layout, ranks=source.ranks)):
            return path
        check_convertible(path, source, layout)
        report(f"{path} was written by {source}: converting it for {layout}")
        return convert(path)
    if existing:
        raise UserError(f"{folder}: no checkpoint is intact; fix: remove the folder to restart the stage")
    return None


@dataclass
class Checkpoints:
    """Writer and reader of the checkpoints of one stage. All ranks call its methods.

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
        """Load a checkpoint into the engine and its schedule. Returns the state of the stage, a new one for None.

        Raises UserError if a rank cannot read the checkpoint.
        """
        if checkpoint is None:
            return StageState()
        deepspeed = self.engine.deepspeed
        with correct_loading(deepspeed):
            path, client_state = deepspeed.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
        if None in all_gather(path):
            raise UserError(
                f"{checkpoint}: some ranks cannot read it; fix: use a run.path on a disk that all hosts share"
            )
        if checkpoint.parent.name == UNIVERSAL and self.engine.world.is_rank0:
            shutil.rmtree(checkpoint.parent, ignore_errors=True)
        state = StageState(**client_state["stage_state"])
        self.engine.rate.load(state.learning_rate, state.plateau)
        return state

    def save(self, state: StageState) -> None:
        """Write a checkpoint, then remove all except the last ones and the best one.

        Raises UserError if the disk is full.
        """
        rate = self.engine.rate
        state.plateau, state.learning_rate = rate.plateau.state_dict(), rate.rate
        folder, tag = self.best.checkpoints, format_tag(state.step)
        work, target = folder / f".{tag}.partial", folder / tag
        intact = "the previous checkpoint is intact" if list_checkpoints(folder) else "there is no previous checkpoint"
        with report_disk_error(target, "the checkpoint cannot be written", intact, work):
            self.export(work / HUGGING_FACE)
            client_state = {"stage_state": asdict(state)}
            self.engine.deepspeed.save_checkpoint(str(folder), work.name, client_state, save_latest=False)
            if self.engine.world.is_rank0:
                write_manifest(work, self.best.owner, self.layout, state.progress)
                shutil.rmtree(target, ignore_errors=True)  # the same step may have been saved before a resume
                work.rename(target)
                write_text(folder / "latest", tag)
                existing = list_checkpoints(folder)
                kept = {target, folder / format_tag(state.best_step), *existing[: self.settings.keep_checkpoints]}
                for path in set(existing) - kept:
                    shutil.rmtree(path, ignore_errors=True)
        self.saved_s = time.monotonic()

    def keep_best(self, state: StageState) -> None:
        """Copy the model of the best checkpoint into the run directory, unless it is there already."""
        name = self.engine.stage
        run_on_rank0(self.engine.world, lambda: self.best.update(state.progress, lambda line: emit(f"{name}: {line}")))

    def is_due(self) -> bool:
        """Return whether it is time for a checkpoint, by the clock of rank 0."""
        return bool(broadcast(time.monotonic() - self.saved_s > 60 * self.settings.checkpoint_minutes))
