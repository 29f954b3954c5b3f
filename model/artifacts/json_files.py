"""Read JSON files of a user, and JSON files of a run directory."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def read_json(path: Path, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file. object_pairs_hook: as in json.loads. Raises UserError if it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=object_pairs_hook)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def read_run_json(path: Path, expected: dict[str, type], next_step: str) -> dict[str, Any]:
    """Read a JSON object of a run directory.

    expected: types of the required keys; next_step: what to do after removing the file, for the error.
    Raises UserError if the file is empty or corrupt, or lacks a required key.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        invalid = [name for name, kind in expected.items() if not isinstance(values[name], kind)]
        if not invalid:
            return dict(values)
        problem = f"invalid {', '.join(invalid)}"
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else "not a complete JSON object"
    state = f"corrupt ({problem})" if path.stat().st_size else "empty"
    raise UserError(
        f"{path}: {state}; expected the JSON object that this run wrote; fix: rm {shlex.quote(str(path))}, "
        f"then {next_step}"
    )
