"""Locate the project's own files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, with pipeline/, model/, sql/ and config.yaml: the package is installed in editable mode."""
SQL = ROOT / "sql"
"""The SQL statements."""


ASSAYS = ROOT / "configs" / "assays"
"""The presets of assays."""


def shipped(name: str, folder: Path = Path()) -> Path:
    """Locate a settings file such as config.yaml: that of a folder if it exists, else the project's if that exists."""
    here = folder / name
    return ROOT / name if not here.exists() and (ROOT / name).exists() else here
