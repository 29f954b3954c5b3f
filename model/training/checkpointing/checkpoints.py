"""Checkpoints of a stage: save, find the last intact one, load.

    checkpoints/STAGE/step-000000120/  DeepSpeed's files; huggingface/, the model for transformers; manifest.json
    checkpoints/STAGE/latest           name of the last one, where DeepSpeed's own tools look for it

A checkpoint is written under a hidden name, and renamed when it is complete.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from model.artifacts.manifest import Layout, StageProgress, damage, read_manifest, write_manifest
from model.distributed.process_group import World, all_gather, run_on_rank0
from model.training.checkpointing.disk import disk_error, is_disk_error
from model.training.checkpointing.reshard import FOLDER, check_convertible, convert
from pipeline.errors import UserError
from pipeline.io.atomic import write_text

HUGGING_FACE = "huggingface"


def tag_of(step: int) -> str:
    """Name the directory of a step's checkpoint."""
    return f"step-{step:09d}"


def newest_first(folder: Path) -> list[Path]:
    """List the checkpoints in a stage's directory, intact or not."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


@dataclass
class StageState:
    """State of a stage; with the engine's own state, all that a resume needs.

    step: optimizer steps taken; epoch, consumed: promoters of that epoch read, over all ranks; evaluated: last step
    with an evaluation; best, best_step: highest validation metric, and its step; waited: evaluations since; history:
    numbers of all evaluations; learning_rate, plateau: state of the schedule; seconds: training time over all starts;
    ended: no steps are left. Random numbers are functions of (seed, stage, epoch, step), so no generator states are
    kept.
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
        """What manifests record of it."""
        at_best = next((values for values in self.history if values["step"] == self.best_step), {})
        values = {name: value for name, value in at_best.items() if name != "step"}
        return StageProgress(self.step, self.best, self.best_step, self.seconds, self.ended, values)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to resume from: DeepSpeed's folder and tag; universal: converted for another number of ranks."""

    folder: Path
    tag: str
    universal: bool = False


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one stage.

    owner: keys of shards and settings; layout: how this run divides its state; keep: number of last ones to keep.
    """

    folder: Path
    owner: dict[str, str]
    layout: Layout
    keep: int
    world: World

    def find(self, emit: Callable[[str], None]) -> Checkpoint | None:
        """Find the last intact checkpoint, converted to this layout where needed; None for none. All ranks call this.

        emit: receives a line for each corrupt checkpoint and for a conversion. Raises UserError where checkpoints exist
        but none is intact, or where the last one belongs to another run.
        """
        return run_on_rank0(self.world, lambda: self._find(emit))

    def load(self, found: Checkpoint, deepspeed: Any) -> StageState:
        """Load a checkpoint into DeepSpeed's engine. Returns the state of the stage. All ranks call this."""
        path, client_state = deepspeed.load_checkpoint(str(found.folder), tag=found.tag)
        if None in all_gather(path):
            place = found.folder / found.tag
            raise UserError(f"{place}: not every process can read it; a run on several hosts needs a shared run.path")
        if found.universal and self.world.is_rank0:
            shutil.rmtree(found.folder, ignore_errors=True)
        return StageState(**client_state["stage_state"])

    def save(self, deepspeed: Any, state: StageState, export: Callable[[Path], None]) -> None:
        """Write a checkpoint; then keep the last ones and the best one. All ranks call this.

        export: writes the Hugging Face directory; every rank calls it. Raises UserError where the disk is full.
        """
        tag = tag_of(state.step)
        work = f".{tag}.partial"
        try:
            export(self.folder / work / HUGGING_FACE)
            client_state = {"stage_state": asdict(state)}
            deepspeed.save_checkpoint(str(self.folder), tag=work, client_state=client_state, save_latest=False)
            if self.world.is_rank0:
                self._publish(self.folder / work, tag, state.progress)
                self._prune(tag, tag_of(state.best_step))
        except UserError:
            shutil.rmtree(self.folder / work, ignore_errors=True)
            raise
        except (OSError, RuntimeError) as error:
            shutil.rmtree(self.folder / work, ignore_errors=True)
            if not is_disk_error(error):  # such as a lost rank
                raise
            intact = "the checkpoint before is intact" if newest_first(self.folder) else "there is none before it"
            raise disk_error(self.folder / tag, "the checkpoint cannot be written", error, intact) from None

    def _publish(self, work: Path, tag: str, progress: StageProgress) -> None:
        """Give a complete checkpoint its name."""
        try:
            write_manifest(work, self.owner, self.layout, progress)
            shutil.rmtree(self.folder / tag, ignore_errors=True)  # of the same step, from before a resume
            work.rename(self.folder / tag)
            write_text(self.folder / "latest", tag)
        except UserError as error:
            raise OSError(str(error)) from None

    def _prune(self, newest: str, best: str) -> None:
        """Remove the checkpoints that are neither the best nor among the last."""
        existing = newest_first(self.folder)
        kept = {newest, best, *(path.name for path in existing[: self.keep])}
        for path in existing:
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _find(self, emit: Callable[[str], None]) -> Checkpoint | None:
        for leftover in (self.folder / FOLDER, *self.folder.glob(".*.partial")):
            shutil.rmtree(leftover, ignore_errors=True)
        existing = newest_first(self.folder)
        for path in existing:
            problem = damage(path)
            if not problem:
                return self._readable(path, emit)
            emit(f"{path} is corrupt; skipped: {problem}")
        if existing:
            raise UserError(f"{self.folder}: no checkpoint is intact; fix: remove the folder to start the stage anew")
        return None

    def _readable(self, path: Path, emit: Callable[[str], None]) -> Checkpoint:
        """Check that an intact checkpoint belongs to this run, and convert it where the layout differs."""
        manifest = read_manifest(path)
        assert manifest is not None
        differing = [name for name, key in self.owner.items() if manifest.owner.get(name) != key]
        if differing:
            raise UserError(
                f"{path} belongs to another run (other {', '.join(differing)}); fix: remove it, or give this run "
                "another name (run.name=...)"
            )
        written = manifest.layout
        assert written is not None
        # ZeRO 0 keeps the whole state in one file, which any number of ranks can read.
        if written == self.layout or (written.zero_stage == 0 and written == replace(self.layout, ranks=written.ranks)):
            return Checkpoint(path.parent, path.name)
        check_convertible(path, written, self.layout)
        emit(f"{path} was written by {written}: converting it for {self.layout}")
        return Checkpoint(convert(path), path.name, universal=True)
