"""JSON that a user names."""

import json
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
