"""The best model of a stage: runs/NAME/pretrained or runs/NAME/model, a Hugging Face directory with a manifest.

It is a copy of what the best checkpoint holds, and is restored from there where it is corrupt or missing. Its manifest
also records whether the stage has ended: then the checkpoints are not needed any more.
"""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from model.artifacts.manifest import Manifest, StageProgress, damage, put_manifest, read_manifest
from model.config import StageName
from model.training.checkpointing.checkpoints import HUGGING_FACE, newest_first, tag_of
from model.training.checkpointing.disk import disk_error
from pipeline.errors import UserError
from pipeline.io.atomic import replace_folder

Emit = Callable[[str], None]
"""Receives a line for the user."""


@dataclass(frozen=True)
class BestModel:
    """The best model's directory, for rank 0 alone.

    checkpoints: directory of the stage's checkpoints; owner: keys of shards and settings.
    """

    stage: StageName
    folder: Path
    checkpoints: Path
    owner: dict[str, str]

    def ended(self) -> StageProgress | None:
        """Read where this run's stage ended. None where it has not, or where only the checkpoints can tell."""
        manifest = read_manifest(self.folder)
        if manifest is None or manifest.owner != self.owner or manifest.standing is None:
            return None
        return manifest.standing if manifest.standing.ended and not damage(self.folder) else None

    def update(self, progress: StageProgress, emit: Emit) -> None:
        """Make the directory hold the best weights so far. The checkpoint of this progress must be written.

        emit: receives a line where a corrupt directory was restored, or cannot be yet. Raises UserError where the disk
        is full, or where the stage has ended and its best weights are lost.
        """
        if progress.best is None:
            return
        manifest, problem = read_manifest(self.folder), damage(self.folder)
        if manifest is not None and not problem and self._holds_best(manifest, progress):
            if manifest.standing != progress:
                put_manifest(self.folder, replace(manifest, standing=progress))
            return
        unexpected = bool(problem) and (self.folder.exists() or progress.step > progress.best_step)
        problem = problem or "not the best weights"
        lost = self._copy(progress)
        if lost and progress.ended:
            raise self._lost(problem, lost)
        if lost:
            emit(f"{self.folder}: {problem}; the next better weights will replace it ({lost})")
        elif unexpected:
            emit(self._restored(problem, progress))

    def require(self, emit: Emit, *outdated: Path) -> None:
        """Check that the directory is intact, or restore it from the last checkpoints.

        outdated: files that must be removed, too, before the stage is trained again. Raises UserError where it must be.
        """
        problem = damage(self.folder)
        if not problem:
            return
        progress = self._last_progress()
        lost = self._copy(progress) if progress is not None else f"there is no checkpoint in {self.checkpoints}"
        if lost or progress is None:
            raise self._lost(problem, lost, *outdated)
        emit(self._restored(problem, progress))

    def _holds_best(self, manifest: Manifest, progress: StageProgress) -> bool:
        standing = manifest.standing
        return manifest.owner == self.owner and standing is not None and standing.best_step == progress.best_step

    def _restored(self, problem: str, progress: StageProgress) -> str:
        return f"{self.folder}: {problem}; restored from {self._source(progress)}"

    def _source(self, progress: StageProgress) -> Path:
        return self.checkpoints / tag_of(progress.best_step) / HUGGING_FACE

    def _copy(self, progress: StageProgress) -> str:
        """Replace the directory by the best checkpoint's model. Returns why it cannot be, or an empty text."""
        source = self._source(progress)
        manifest = read_manifest(source.parent)
        problem = damage(source.parent, HUGGING_FACE)
        if manifest is None or problem:
            return f"{source.parent}: {problem}"
        files = manifest.of_part(HUGGING_FACE)
        new = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(new, ignore_errors=True)
        try:
            for name in files:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, new / name)
            put_manifest(new, Manifest(self.owner, None, progress, files))
            replace_folder(new, self.folder)
        except (OSError, UserError) as error:
            shutil.rmtree(new, ignore_errors=True)
            problem = "the model cannot be written"
            raise disk_error(self.folder, problem, error, "the last checkpoint is intact") from None
        return ""

    def _last_progress(self) -> StageProgress | None:
        """Read the newest progress that this run's checkpoints record; None where there is no best one yet."""
        for folder in newest_first(self.checkpoints):
            manifest = read_manifest(folder)
            if manifest is not None and manifest.owner == self.owner and manifest.standing is not None:
                return manifest.standing if manifest.standing.best is not None else None
        return None

    def _lost(self, problem: str, lost: str, *outdated: Path) -> UserError:
        """Make the error of a model that must be trained again, with the command to type before."""
        gone = [shlex.quote(str(path)) for path in (*outdated, self.checkpoints) if path.exists()]
        removal = f"rm -r {' '.join(gone)}, then " if gone else ""
        way = "run --stage pretrain first" if self.stage == "pretrain" else "run the same command to train it again"
        return UserError(f"{self.folder}: {problem}, and it cannot be restored ({lost}); fix: {removal}{way}")
