"""The best model of a stage: runs/NAME/pretrained or runs/NAME/model, a Hugging Face folder with a manifest.

It is a copy of what the best checkpoint holds, and is made again from there where it is damaged or gone. Its manifest
says, too, whether the stage has ended: then the checkpoints are not needed any more.
"""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from model.artifacts.manifest import Manifest, Standing, damage, put_manifest, read_manifest
from model.config import StageName
from model.training.checkpoints import HUGGING_FACE, tag_of
from pipeline.errors import UserError
from pipeline.io.atomic import replace_folder

Say = Callable[[str], None]


@dataclass(frozen=True)
class BestModel:
    """folder: the model; checkpoints: those of its stage; owner: the keys of shards and settings.

    For rank 0 alone.
    """

    stage: StageName
    folder: Path
    checkpoints: Path
    owner: dict[str, str]

    def ended(self) -> Standing | None:
        """Where this run's stage ended, by a folder that is whole; None where it has not, or is to be looked up in the
        checkpoints."""
        manifest = read_manifest(self.folder)
        if manifest is None or manifest.owner != self.owner or manifest.standing is None:
            return None
        return manifest.standing if manifest.standing.ended and not damage(self.folder) else None

    def update(self, standing: Standing, say: Say) -> None:
        """Have the folder hold the best weights so far; the checkpoint of this standing must be written.

        say: told where a damaged folder was replaced, or cannot be yet. Raises UserError where the disk is full, or
        where the stage has ended and its best weights are lost.
        """
        if standing.best is None:
            return
        manifest, wrong = read_manifest(self.folder), damage(self.folder)
        if manifest is not None and not wrong and _holds(manifest, self.owner, standing):
            if manifest.standing != standing:
                put_manifest(self.folder, replace(manifest, standing=standing))
            return
        odd = bool(wrong) and (self.folder.exists() or standing.step > standing.best_step)
        lost = self._copy(standing)
        if lost and standing.ended:
            raise self._lost(wrong or "not the best weights", lost)
        if lost:
            say(f"{self.folder}: {wrong or 'not the best weights'}; the next better ones will stand there ({lost})")
        elif odd:
            say(f"{self.folder}: {wrong}; made again from {self._source(standing)}")

    def require(self, say: Say, *outdated: Path) -> None:
        """See that the folder is whole, or make it again from the last checkpoints.

        outdated: files that must go, too, before the stage is trained again. Raises UserError where that is needed.
        """
        wrong = damage(self.folder)
        if not wrong:
            return
        standing = self._last_standing()
        lost = self._copy(standing) if standing is not None else f"there is no checkpoint in {self.checkpoints}"
        if lost or standing is None:
            raise self._lost(wrong, lost, *outdated)
        say(f"{self.folder}: {wrong}; made again from {self._source(standing)}")

    def _source(self, standing: Standing) -> Path:
        return self.checkpoints / tag_of(standing.best_step) / HUGGING_FACE

    def _copy(self, standing: Standing) -> str:
        """Put the best checkpoint's model in the folder's place. Returns why it cannot be, or an empty text."""
        source = self._source(standing)
        manifest = read_manifest(source.parent)
        wrong = damage(source.parent, HUGGING_FACE)
        if manifest is None or wrong:
            return f"{source.parent}: {wrong}"
        files = manifest.of_part(HUGGING_FACE)
        new = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(new, ignore_errors=True)
        try:
            for name in files:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, new / name)
            put_manifest(new, Manifest(self.owner, None, standing, files))
            replace_folder(new, self.folder)
        except (OSError, UserError) as error:
            shutil.rmtree(new, ignore_errors=True)
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"{self.folder}: the model cannot be written ({why}); the last checkpoint is whole. Make room, then "
                "the same command goes on"
            ) from None
        return ""

    def _last_standing(self) -> Standing | None:
        """By the newest of this run's checkpoints that says it."""
        for folder in sorted(self.checkpoints.glob("step-*"), reverse=True):
            manifest = read_manifest(folder)
            if manifest is not None and manifest.owner == self.owner and manifest.standing is not None:
                return manifest.standing if manifest.standing.best is not None else None
        return None

    def _lost(self, wrong: str, lost: str, *outdated: Path) -> UserError:
        """With what to type to have the stage trained again."""
        gone = [shlex.quote(str(path)) for path in (*outdated, self.checkpoints) if path.exists()]
        removed = f"rm -r {' '.join(gone)}, then " if gone else ""
        way = "run --stage pretrain first" if self.stage == "pretrain" else "the same command trains it again"
        return UserError(f"{self.folder}: {wrong}, and it cannot be made again ({lost}): {removed}{way}")


def _holds(manifest: Manifest, owner: dict[str, str], standing: Standing) -> bool:
    found = manifest.standing
    return manifest.owner == owner and found is not None and found.best_step == standing.best_step
