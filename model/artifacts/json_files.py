"""JSON that a user names, and JSON that a run wrote."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def read_json(path: Path, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What a file holds. object_pairs_hook: as json.loads has it. Raises UserError where it is no JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=object_pairs_hook)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def read_written(path: Path, expected: dict[str, type], way_out: str) -> dict[str, Any]:
    """A file that a run wrote. way_out: what comes of removing it.

    Raises UserError where it is empty or damaged, or lacks one of the expected keys.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        wrong = [name for name, kind in expected.items() if not isinstance(values[name], kind)]
        problem = f"{', '.join(wrong)} damaged" if wrong else ""
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else "no whole JSON object"
    if problem:
        size = path.stat().st_size
        raise UserError(
            f"{path} is {f'damaged ({problem})' if size else 'empty'}; expected what this run wrote. Remove it "
            f"(rm {shlex.quote(str(path))}), {way_out}"
        )
    return dict(values)
