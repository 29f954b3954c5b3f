"""What a checkpoint or a model's folder holds: without it, or with other bytes than it says, a folder is torn."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.io.atomic import write_text

NAME = "manifest.json"


@dataclass(frozen=True)
class Layout:
    """How DeepSpeed cut the state into files: it can be read as it is by as many ranks of the same ZeRO stage."""

    ranks: int
    zero_stage: int
    precision: str

    def __str__(self) -> str:
        return f"{self.ranks} {'rank' if self.ranks == 1 else 'ranks'}, ZeRO {self.zero_stage}, {self.precision}"


@dataclass(frozen=True)
class Standing:
    """Where a stage stood when a folder was written.

    best: highest validation metric so far, None before the first; best_step: where it was; seconds: time trained;
    best_values: all numbers of that validation; ended: no more steps.
    """

    step: int
    best: float | None
    best_step: int
    seconds: float
    ended: bool
    best_values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """owner: the keys of the run that wrote it, by name; files: [bytes, sha256] of each, by its path in the folder.

    layout: None where the folder holds a model and no state to go on from.
    """

    owner: dict[str, str]
    layout: Layout | None
    standing: Standing | None
    files: dict[str, list[int | str]]

    def of_part(self, part: str) -> dict[str, list[int | str]]:
        """The files below one folder of it, by their paths in there; all of them for an empty name."""
        prefix = f"{part}/" if part else ""
        return {name.removeprefix(prefix): facts for name, facts in self.files.items() if name.startswith(prefix)}


def write_manifest(folder: Path, owner: dict[str, str], layout: Layout, standing: Standing) -> None:
    """Hash what lies in a folder."""
    files = {str(path.relative_to(folder)): _facts(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    put_manifest(folder, Manifest(owner, layout, standing, files))


def put_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest as it is."""
    write_text(folder / NAME, json.dumps(asdict(manifest), indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """None where there is none that can be read: the folder is torn."""
    try:
        values = json.loads((folder / NAME).read_text(encoding="utf-8"))
        layout, standing = values["layout"], values.get("standing")
        return Manifest(
            values["owner"], Layout(**layout) if layout else None, Standing(**standing) if standing else None,
            values["files"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def damage(folder: Path, part: str = "") -> str:
    """What is not as it was written, in the whole folder or in one of its own; or an empty text. Reads every byte."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"{NAME} is missing or cannot be read" if folder.exists() else "the folder is missing"
    folder /= part
    for name, (size, sha256) in manifest.of_part(part).items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, expected {size:,}"
        try:
            if _facts(path)[1] != sha256:
                return f"{name} has other bytes than were written"
        except OSError as error:  # a bad sector, say
            return f"{name} cannot be read ({error.strerror})"
    return ""


def _facts(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
