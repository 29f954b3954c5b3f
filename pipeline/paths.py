"""Locate the project's own files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, with pipeline/, model/, sql/ and config.yaml: the package is installed in editable mode."""
SQL = ROOT / "sql"
"""The SQL statements."""


def shipped(name: str) -> Path:
    """Return the path of a settings file such as config.yaml: in the working directory, or else in the project."""
    here = Path(name)
    return here if here.exists() else ROOT / name
