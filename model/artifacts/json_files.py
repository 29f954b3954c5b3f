"""Read JSON files that a user names, and JSON files that a run wrote."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def read_json(path: Path, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file. object_pairs_hook: as in json.loads. Raises UserError if it cannot be read or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=object_pairs_hook)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def read_written(path: Path, expected: dict[str, type], way_out: str) -> dict[str, Any]:
    """Read a JSON object that a run wrote. way_out: what happens after the file is removed, for the error.

    Raises UserError if the file is empty or corrupt, or lacks one of the expected keys.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        wrong = [name for name, kind in expected.items() if not isinstance(values[name], kind)]
        if not wrong:
            return dict(values)
        problem = f"{', '.join(wrong)} invalid"
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else "no whole JSON object"
    state = f"corrupt ({problem})" if path.stat().st_size else "empty"
    raise UserError(
        f"{path}: {state}; expected what this run wrote; fix: remove it (rm {shlex.quote(str(path))}), {way_out}"
    )
