"""The run's numbers: metrics.jsonl and TensorBoard, on rank 0 only."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from model.runs.events import Events
from pipeline.errors import UserError
from pipeline.io.atomic import write_text

PLACE = ("stage", "step", "epoch")
"""What every line has beside its numbers."""


class Tracker:
    """Writes one JSON line and the TensorBoard scalars for each call of `log`; nothing on other ranks.

    Its methods raise UserError where the disk is full.
    """

    def __init__(self, run: Path, is_rank0: bool) -> None:
        self.path = run / "metrics.jsonl"
        self._is_rank0 = is_rank0
        self._events: Events | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            with suppress(OSError):  # a full disk: what ended the run has been said
                self._events.close()

    def begin(self, stage: str, step: int) -> None:
        """Before a stage goes on after a step. What was written of later ones is dropped: they come again."""
        if not self._is_rank0:
            return
        with self._room():
            if self.path.exists():
                kept = [line for line in read_metrics(self.path) if line["stage"] != stage or line["step"] <= step]
                write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
            if self._events is not None:
                self._events.close()
            # A folder a stage: TensorBoard drops a folder's later steps whatever their names are.
            self._events = Events(self.path.parent / "tensorboard" / stage, step)

    def log(self, stage: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Record numbers of a stage that has begun, at a step."""
        if self._events is None:
            return
        line = json.dumps({"stage": stage, "step": step, "epoch": round(epoch, 6), **values}) + "\n"
        with self._room():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)  # at once: who reads along sees whole lines
            self._events.add(step, {f"{stage}/{name}": value for name, value in values.items()})

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UserError) as error:
            why = error.strerror or error if isinstance(error, OSError) else error
            raise UserError(
                f"{self.path.parent}: the metrics cannot be written ({why}); the last checkpoint is whole. Make room, "
                "then the same command goes on"
            ) from None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; what a kill or a full disk cut off is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.keys() >= set(PLACE):
            lines.append(line)
    return lines
