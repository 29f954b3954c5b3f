"""Locate the project's own files."""

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

MOST_FILES = 1000
"""Files of a folder among which a similar name is searched."""
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


def find_similar(name: str, known: Iterable[str]) -> str:
    """Find the known name that begins as a mistyped one, or else resembles it; an empty text if there is none."""
    names = list(known)
    longer = [other for other in names if other.casefold().startswith(name.casefold())]
    return next(iter(longer or difflib.get_close_matches(name, names, 1)), "")


def suggest(name: str, known: Iterable[str]) -> str:
    """Ask whether a known name is meant by a mistyped one, as the end of a message; empty if there is none."""
    near = find_similar(name, known)
    return f"; did you mean {near}?" if near else ""


def suggest_file(path: Path, suffixes: Sequence[str] = ()) -> str:
    """Suggest a file of a similar name in the folder of a missing one; an empty text if there is none.

    suffixes: endings that a name must have; empty for any.
    """
    with suppress(OSError):
        files = sorted(each for each in islice(path.parent.iterdir(), MOST_FILES) if not each.name.startswith("."))
        names = {each.name: each for each in files if not suffixes or each.suffix in suffixes}
        if near := find_similar(path.name, names):
            return f"; did you mean {path.parent / near}?"
    return ""


def looked_in(path: Path | str) -> str:
    """Say in parentheses where a missing relative path was looked for; empty for an absolute path or a URL."""
    if "://" in str(path) or Path(path).is_absolute():
        return ""
    return f" (looked in the current folder: {Path.cwd() / path})"
