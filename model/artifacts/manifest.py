"""Manifest of a checkpoint or model directory: sizes and hashes of its files, and the run that wrote them.

A directory is corrupt if it has no manifest, or if its bytes differ from the manifest.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.io.atomic import write_text
from pipeline.runtime.text import format_count

NAME = "manifest.json"


@dataclass(frozen=True)
class Layout:
    """Division of the training state into files by DeepSpeed.

    The same number of ranks at the same ZeRO stage can load it without a conversion.
    """

    ranks: int
    zero_stage: int
    precision: str

    def __str__(self) -> str:
        return f"{format_count(self.ranks, 'rank')}, ZeRO {self.zero_stage}, {self.precision}"


@dataclass(frozen=True)
class StageProgress:
    """Progress of a stage when a directory was written.

    step: optimizer steps taken; best: highest validation metric so far, None before the first validation; best_step:
    its step; best_values: all metrics of that validation; seconds: training time; ended: whether no steps are left.
    """

    step: int
    best: float | None
    best_step: int
    seconds: float
    ended: bool
    best_values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Content of manifest.json.

    owner: keys of the run that wrote the directory, by name; layout: None for a model without training state;
    progress: of its stage, stored under the key `standing`; files: [bytes, sha256] by path relative to the directory.
    """

    owner: dict[str, str]
    layout: Layout | None
    progress: StageProgress | None
    files: dict[str, list[int | str]]

    def select_files(self, part: str) -> dict[str, list[int | str]]:
        """Select the files of a sub-directory, by paths relative to it; all files for an empty name."""
        prefix = f"{part}/" if part else ""
        return {name.removeprefix(prefix): facts for name, facts in self.files.items() if name.startswith(prefix)}


def write_manifest(folder: Path, owner: dict[str, str], layout: Layout, progress: StageProgress) -> None:
    """Hash all files of a directory and write its manifest."""
    files = {str(path.relative_to(folder)): _hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    put_manifest(folder, Manifest(owner, layout, progress, files))


def put_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest into its directory."""
    values = {"standing" if name == "progress" else name: value for name, value in asdict(manifest).items()}
    write_text(folder / NAME, json.dumps(values, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a directory. Returns None if it is missing or invalid: then the directory is corrupt."""
    try:
        values = json.loads((folder / NAME).read_text(encoding="utf-8"))
        layout, progress = values["layout"], values.get("standing")
        return Manifest(
            values["owner"],
            Layout(**layout) if layout else None,
            StageProgress(**progress) if progress else None,
            values["files"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def find_corruption(folder: Path, part: str = "") -> str:
    """Check the size and sha256 of every file against the manifest, in a directory or its sub-directory `part`.

    Returns the first difference as a text; empty if the files are intact.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return f"{NAME} is missing or cannot be read" if folder.exists() else "the folder is missing"
    for name, (size_bytes, sha256) in manifest.select_files(part).items():
        path = folder / part / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size_bytes:
            return f"{name} has {path.stat().st_size:,} bytes, expected {size_bytes:,}"
        try:
            if _hash_file(path)[1] != sha256:
                return f"{name} has other bytes than its manifest records"
        except OSError as error:  # such as a bad sector
            return f"{name} cannot be read ({error.strerror})"
    return ""


def _hash_file(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
