"""The run's numbers: metrics.jsonl and TensorBoard, on the leading rank only."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from model.metrics_file import read_metrics
from pipeline.atomic import write_text
from pipeline.errors import UserError


class Tracker:
    """Writes one JSON line and the TensorBoard scalars for each call of `log`; nothing on other ranks."""

    def __init__(self, run: Path, leads: bool) -> None:
        self.path = run / "metrics.jsonl"
        self._writer = SummaryWriter(str(run / "tensorboard")) if leads else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            with suppress(OSError):  # a full disk: what ended the run has been said
                self._writer.close()

    def log(self, stage: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Record numbers of a stage at a step."""
        if self._writer is None:
            return
        line = json.dumps({"stage": stage, "step": step, "epoch": round(epoch, 6), **values}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)  # at once: who reads along sees whole lines
            for name, value in values.items():
                self._writer.add_scalar(f"{stage}/{name}", value, step)
        except OSError as error:
            raise UserError(
                f"{self.path.parent}: the metrics cannot be written: {error.strerror}; the last checkpoint is whole"
            ) from None

    def forget_after(self, stage: str, step: int) -> None:
        """Drop a stage's lines past a step: a resume writes them again."""
        if self._writer is None or not self.path.exists():
            return
        kept = [line for line in read_metrics(self.path) if line["stage"] != stage or line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
