"""Best model of a stage: runs/NAME/pretrained or runs/NAME/model, a Hugging Face directory with a manifest.

It is a copy of the model in the best checkpoint, and is restored from there if it is corrupt or missing. Its manifest
also records whether the stage has ended; after that the checkpoints are not needed.
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


def format_tag(step: int) -> str:
    """Format the name of a checkpoint's directory. step: optimizer steps taken."""
    return f"step-{step:09d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in the directory of a stage, intact or not, the last step first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


@dataclass(frozen=True)
class BestModel:
    """Directory of a stage's best model, used by rank 0 only.

    checkpoints: directory of the stage's checkpoints; owner: keys of shards and settings of the run.
    """

    stage: StageName
    folder: Path
    checkpoints: Path
    owner: dict[str, str]

    def read_ended_progress(self) -> StageProgress | None:
        """Read the progress of an ended stage. Returns None if the stage has not ended, or the model is corrupt."""
        progress = self._read_progress(self.folder)
        return progress if progress is not None and progress.ended and not find_corruption(self.folder) else None

    def update(self, progress: StageProgress, report: Callable[[str], None]) -> None:
        """Copy the best weights so far into the directory. The checkpoint of this progress must have been written.

        report: receives a line if a corrupt directory was restored, or cannot be restored yet. Raises UserError if the
        disk is full, or if the stage has ended and its best weights are lost.
        """
        if progress.best is None:
            return
        recorded, problem = self._read_progress(self.folder), find_corruption(self.folder)
        manifest = read_manifest(self.folder)
        if manifest and recorded and not problem and recorded.best_step == progress.best_step:
            if recorded != progress:
                put_manifest(self.folder, Manifest(self.owner, None, progress, manifest.files))
            return
        is_unexpected = bool(problem) and (self.folder.exists() or progress.step > progress.best_step)
        problem = problem or "not the best weights"
        obstacle = self._copy(progress)
        if obstacle and progress.ended:
            raise self._make_lost_error(problem, obstacle)
        if obstacle:
            report(f"{self.folder}: {problem}; it will be replaced by the next better weights ({obstacle})")
        elif is_unexpected:
            report(f"{self.folder}: {problem}; restored from {self._find_source(progress)}")

    def ensure_intact(self, report: Callable[[str], None], *stale: Path) -> None:
        """Check that the directory is intact, or restore it from the checkpoints.

        stale: further files to remove before the stage can be trained again. Raises UserError if the directory
        cannot be restored.
        """
        problem = find_corruption(self.folder)
        if not problem:
            return
        progress = next(filter(None, map(self._read_progress, list_checkpoints(self.checkpoints))), None)
        if progress is None or progress.best is None:
            raise self._make_lost_error(problem, f"there is no checkpoint in {self.checkpoints}", *stale)
        if obstacle := self._copy(progress):
            raise self._make_lost_error(problem, obstacle, *stale)
        report(f"{self.folder}: {problem}; restored from {self._find_source(progress)}")

    def _read_progress(self, folder: Path) -> StageProgress | None:
        """Read the progress in the manifest of a directory. Returns None if the directory is not of this run."""
        manifest = read_manifest(folder)
        return manifest.progress if manifest is not None and manifest.owner == self.owner else None

    def _find_source(self, progress: StageProgress) -> Path:
        return self.checkpoints / format_tag(progress.best_step) / HUGGING_FACE

    def _copy(self, progress: StageProgress) -> str:
        """Replace the directory by the model of the best checkpoint. Returns the obstacle, or an empty text."""
        source = self._find_source(progress)
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

    def _make_lost_error(self, problem: str, obstacle: str, *stale: Path) -> UserError:
        """Make the error of a lost model, with the commands to train it again."""
        leftovers = [shlex.quote(str(path)) for path in (*stale, self.checkpoints) if path.exists()]
        removal = f"rm -r {' '.join(leftovers)}, then " if leftovers else ""
        command = "run --stage pretrain first" if self.stage == "pretrain" else "run the same command to train it again"
        return UserError(f"{self.folder}: {problem}, and it cannot be restored ({obstacle}); fix: {removal}{command}")
