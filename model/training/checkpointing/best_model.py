"""The best model of a stage: runs/NAME/pretrained or runs/NAME/model, a Hugging Face directory with a manifest.

It is a copy of what the best checkpoint holds, and is restored from there if it is corrupt or missing. Its manifest
also records whether the stage has ended: then the checkpoints are not needed any more.
"""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.artifacts.manifest import Manifest, StageProgress, find_corruption, put_manifest, read_manifest
from model.config import StageName
from model.training.checkpointing.disk import report_disk_error
from pipeline.errors import UserError
from pipeline.io.atomic import replace_folder

HUGGING_FACE = "huggingface"
"""Sub-directory of a checkpoint that holds the model."""


def tag_of(step: int) -> str:
    """Name the directory of a step's checkpoint."""
    return f"step-{step:09d}"


def newest_first(folder: Path) -> list[Path]:
    """List the checkpoints in a stage's directory, intact or not."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


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
        """Read the progress of an ended stage. None if the stage has not ended or only checkpoints can tell."""
        progress = self._progress_in(self.folder)
        return progress if progress is not None and progress.ended and not find_corruption(self.folder) else None

    def update(self, progress: StageProgress, report: Callable[[str], None]) -> None:
        """Make the directory hold the best weights so far. The checkpoint of this progress must be written.

        report: receives a line if a corrupt directory was restored, or cannot be yet. Raises UserError if the disk is
        full, or if the stage has ended and its best weights are lost.
        """
        if progress.best is None:
            return
        recorded, problem = self._progress_in(self.folder), find_corruption(self.folder)
        manifest = read_manifest(self.folder)
        if manifest and recorded and not problem and recorded.best_step == progress.best_step:
            if recorded != progress:
                put_manifest(self.folder, Manifest(self.owner, None, progress, manifest.files))
            return
        is_unexpected = bool(problem) and (self.folder.exists() or progress.step > progress.best_step)
        problem = problem or "not the best weights"
        obstacle = self._copy(progress)
        if obstacle and progress.ended:
            raise self._retrain_error(problem, obstacle)
        if obstacle:
            report(f"{self.folder}: {problem}; the next better weights will replace it ({obstacle})")
        elif is_unexpected:
            report(f"{self.folder}: {problem}; restored from {self._source(progress)}")

    def require(self, report: Callable[[str], None], *outdated: Path) -> None:
        """Check that the directory is intact, or restore it from the last checkpoints.

        outdated: files to remove, too, before the stage can be trained again. Raises UserError if it must be.
        """
        problem = find_corruption(self.folder)
        if not problem:
            return
        progress = next(filter(None, map(self._progress_in, newest_first(self.checkpoints))), None)
        if progress is None or progress.best is None:
            raise self._retrain_error(problem, f"there is no checkpoint in {self.checkpoints}", *outdated)
        if obstacle := self._copy(progress):
            raise self._retrain_error(problem, obstacle, *outdated)
        report(f"{self.folder}: {problem}; restored from {self._source(progress)}")

    def _progress_in(self, folder: Path) -> StageProgress | None:
        """Read the progress that the manifest of a directory records; None if the directory is not of this run."""
        manifest = read_manifest(folder)
        return manifest.progress if manifest is not None and manifest.owner == self.owner else None

    def _source(self, progress: StageProgress) -> Path:
        return self.checkpoints / tag_of(progress.best_step) / HUGGING_FACE

    def _copy(self, progress: StageProgress) -> str:
        """Replace the directory by the best checkpoint's model. Returns why it cannot be, or an empty text."""
        source = self._source(progress)
        manifest = read_manifest(source.parent)
        problem = find_corruption(source.parent, HUGGING_FACE)
        if manifest is None or problem:
            return f"{source.parent}: {problem}"
        files = manifest.select_files(HUGGING_FACE)
        new = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(new, ignore_errors=True)
        with report_disk_error(self.folder, "the model cannot be written", "the last checkpoint is intact", new):
            for name in files:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, new / name)
            put_manifest(new, Manifest(self.owner, None, progress, files))
            replace_folder(new, self.folder)
        return ""

    def _retrain_error(self, problem: str, obstacle: str, *outdated: Path) -> UserError:
        """Make the error of a model that must be trained again, with the command to type before."""
        leftovers = [shlex.quote(str(path)) for path in (*outdated, self.checkpoints) if path.exists()]
        removal = f"rm -r {' '.join(leftovers)}, then " if leftovers else ""
        command = "run --stage pretrain first" if self.stage == "pretrain" else "run the same command to train it again"
        return UserError(f"{self.folder}: {problem}, and it cannot be restored ({obstacle}); fix: {removal}{command}")
