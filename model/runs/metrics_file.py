"""Reader of metrics.jsonl. This module does not import TensorBoard, which takes half a second."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

POSITION_KEYS = ("stage", "step", "epoch")
"""Keys of every line that give its position in the run; all other keys are metrics."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl. Incomplete lines, after a kill or on a full disk, are skipped."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and line.keys() >= set(POSITION_KEYS):
                lines.append(line)
    return lines


def read_long_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl in long format: stage, step, epoch, metric, value, one row per value."""
    return [
        {**{name: line[name] for name in POSITION_KEYS}, "metric": name, "value": float(value)}
        for line in read_metrics(path)
        for name, value in line.items()
        if name not in POSITION_KEYS
    ]
