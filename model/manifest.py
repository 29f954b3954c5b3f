"""What a checkpoint holds, written last: a folder without it, or with other bytes than it says, is torn."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.atomic import write_text

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
class Manifest:
    """owner: the keys of the run that wrote it, by name; files: [bytes, sha256] of each, by its path in the folder."""

    owner: dict[str, str]
    layout: Layout
    files: dict[str, list[int | str]]


def write_manifest(folder: Path, owner: dict[str, str], layout: Layout) -> None:
    """Hash what lies in a folder."""
    files = {str(path.relative_to(folder)): _facts(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    write_text(folder / NAME, json.dumps(asdict(Manifest(owner, layout, files)), indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """None where there is none that can be read: the folder is torn."""
    try:
        values = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return Manifest(values["owner"], Layout(**values["layout"]), values["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def damage(folder: Path) -> str:
    """What is not as it was written, or an empty text. Reads every byte."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"{NAME} is missing or cannot be read"
    for name, (size, sha256) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, expected {size:,}"
        if _facts(path)[1] != sha256:
            return f"{name} has other bytes than were written"
    return ""


def _facts(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
