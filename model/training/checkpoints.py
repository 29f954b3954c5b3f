"""Saving a stage and going on: DeepSpeed's checkpoint, where the stage stood, and a manifest that proves it whole.

    checkpoints/STAGE/step-000000120/  DeepSpeed's files; huggingface/, the model as transformers loads it; the manifest
    checkpoints/STAGE/latest           the last of them, as DeepSpeed's own tools look for it

A checkpoint is written under a hidden name and renamed when all of it is there.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from model.artifacts.manifest import Layout, Standing, damage, read_manifest, write_manifest
from model.distributed.process_group import World, all_gather, run_on_rank0
from model.training.reshard import FOLDER, check_convertible, convert
from pipeline.errors import UserError
from pipeline.io.atomic import write_text

HUGGING_FACE = "huggingface"
DISK_TROUBLE = ("PytorchStreamWriter", "inline_container", "No space left", "file write failed", "iostream error")
"""What is in a RuntimeError of torch that wraps a full disk."""


def tag_of(step: int) -> str:
    """The folder's name of a step's checkpoint."""
    return f"step-{step:09d}"


@dataclass
class StageState:
    """Where a stage stands; with the engine's own state all that a resume needs.

    step: optimizer steps taken; epoch, consumed: promoters of that epoch taken, over all ranks; evaluated: the last
    step with an evaluation; best, best_step: highest validation metric, and where; waited: evaluations since;
    history: the numbers of all evaluations; learning_rate, plateau: the scheduler's state; seconds: time trained, over
    all starts; ended: no more steps. Random numbers are functions of (seed, stage, epoch, step): none are kept.
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
    def standing(self) -> Standing:
        """What folders say of it."""
        at_best = next((values for values in self.history if values["step"] == self.best_step), {})
        values = {name: value for name, value in at_best.items() if name != "step"}
        return Standing(self.step, self.best, self.best_step, self.seconds, self.ended, values)


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from: DeepSpeed's folder and tag; universal: in the form for any number of ranks."""

    folder: Path
    tag: str
    universal: bool = False


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one stage. owner: the keys of shards and settings; layout: how this run cuts its state."""

    folder: Path
    owner: dict[str, str]
    layout: Layout
    keep: int
    world: World

    def find(self, say: Callable[[str], None]) -> Found | None:
        """The last whole checkpoint, made readable for this layout, or None where there is none. All ranks call this.

        say: told of torn ones and of a conversion. Raises UserError where none is whole, or one is of another run.
        """
        return run_on_rank0(self.world, lambda: self._find(say))

    def load(
        self, found: Found | None, engine: Any, scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau
    ) -> StageState:
        """Bring engine and scheduler to a checkpoint that was found. All ranks call this."""
        if found is None:
            return StageState()
        path, client_state = engine.load_checkpoint(str(found.folder), tag=found.tag)
        if len({name is None for name in all_gather(path)}) > 1 or path is None:
            place = found.folder / found.tag
            raise UserError(f"{place}: not every process can read it; a run on several hosts needs a shared path")
        if found.universal and self.world.is_rank0:
            shutil.rmtree(found.folder, ignore_errors=True)
        state = StageState(**client_state["stage_state"])
        scheduler.load_state_dict(state.plateau)
        for group in scheduler.optimizer.param_groups:
            group["lr"] = state.learning_rate
        return state

    def save(self, engine: Any, state: StageState, export: Callable[[Path], None]) -> None:
        """Write a checkpoint; keep the last ones and that of the best validation. All ranks call this.

        export: writes the Hugging Face folder, called by every rank. Raises UserError where the disk is full.
        """
        tag = tag_of(state.step)
        work = f".{tag}.partial"
        client_state = {"stage_state": asdict(state)}
        try:
            export(self.folder / work / HUGGING_FACE)
            engine.save_checkpoint(str(self.folder), tag=work, client_state=client_state, save_latest=False)
            if self.world.is_rank0:
                self._publish(self.folder / work, tag, state.standing)
                self._prune(tag, tag_of(state.best_step))
        except UserError:
            shutil.rmtree(self.folder / work, ignore_errors=True)
            raise
        except (OSError, RuntimeError) as error:
            free = shutil.disk_usage(self.folder).free / 1e6 if self.folder.exists() else 0.0
            shutil.rmtree(self.folder / work, ignore_errors=True)
            if not _of_the_disk(error):  # another rank was lost, say
                raise
            before = "the checkpoint before is whole" if self._tags() else "there is none before it"
            raise UserError(
                f"{self.folder / tag}: the checkpoint cannot be written, {free:,.0f} MB are free on that disk "
                f"({str(error).splitlines()[0]}); {before}. Make room, then the same command goes on"
            ) from None

    def _publish(self, work: Path, tag: str, standing: Standing) -> None:
        try:
            write_manifest(work, self.owner, self.layout, standing)
            shutil.rmtree(self.folder / tag, ignore_errors=True)  # the same step, from before a resume
            work.rename(self.folder / tag)
            write_text(self.folder / "latest", tag)
        except UserError as error:
            raise OSError(str(error)) from None

    def _prune(self, newest: str, best: str) -> None:
        kept = {newest, best, *self._tags()[: self.keep]}
        for tag in self._tags():
            if tag not in kept:
                shutil.rmtree(self.folder / tag, ignore_errors=True)

    def _tags(self) -> list[str]:
        """Newest first."""
        return sorted((path.name for path in self.folder.glob("step-*") if path.is_dir()), reverse=True)

    def _find(self, say: Callable[[str], None]) -> Found | None:
        for leftover in (self.folder / FOLDER, *self.folder.glob(".*.partial")):
            shutil.rmtree(leftover, ignore_errors=True)
        tags = self._tags()
        for tag in tags:
            place = self.folder / tag
            wrong = damage(place)
            if not wrong:
                return self._readable(place, say)
            say(f"{place} is torn and left out: {wrong}")
        if tags:
            raise UserError(f"{self.folder}: no checkpoint is whole; remove the folder to begin the stage anew")
        return None

    def _readable(self, place: Path, say: Callable[[str], None]) -> Found:
        manifest = read_manifest(place)
        assert manifest is not None
        differing = [name for name, key in self.owner.items() if manifest.owner.get(name) != key]
        if differing:
            raise UserError(
                f"{place} is of another run (other {', '.join(differing)}): remove it, or give this run another name "
                "(run.name=...)"
            )
        written = manifest.layout
        assert written is not None
        # ZeRO 0 keeps all of the state in one place, which any number of ranks can read.
        if written == self.layout or (written.zero_stage == 0 and written == replace(self.layout, ranks=written.ranks)):
            return Found(place.parent, place.name)
        check_convertible(place, written, self.layout)
        say(f"{place} was written by {written}: made readable for {self.layout}")
        return Found(convert(place), place.name, universal=True)


def _of_the_disk(error: Exception) -> bool:
    """Whether a checkpoint could not be written; torch wraps a full disk in a RuntimeError."""
    if isinstance(error, OSError):
        return not isinstance(error, ConnectionError)
    return any(sign in str(error) for sign in DISK_TROUBLE)
