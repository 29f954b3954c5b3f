"""Locate the project's own files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, with pipeline/, model/, sql/ and config.yaml: the package is installed in editable mode."""
SQL = ROOT / "sql"
"""The SQL statements."""

TRAIN = ROOT / "train.py"
"""The program that trains."""
ASSAYS = ROOT / "configs" / "assays"
"""The presets of assays."""


def shipped(name: str, folder: Path = Path()) -> Path:
    """Locate a settings file such as config.yaml: that of a folder if it exists, else the project's if that exists."""
    here = folder / name
    return ROOT / name if not here.exists() and (ROOT / name).exists() else here


def looked_in(path: Path | str) -> str:
    """Say in parentheses where a missing relative path was looked for; empty for an absolute path or a URL."""
    if "://" in str(path) or Path(path).is_absolute():
        return ""
    return f" (looked in the current folder: {Path.cwd() / path})"
