"""Metric log of a run: metrics.jsonl and TensorBoard event files, written by rank 0 only.

torch's SummaryWriter is not used: it writes in a thread of its own, where a full disk prints a traceback.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from model.runs.status import STATUS, State, update_status
from pipeline.errors import UserError
from pipeline.io.atomic import write_text

PLACE = ("stage", "step", "epoch")
"""Keys of every line beside its metrics."""
STATUS_EVERY_S = 15.0
"""Seconds between two updates of the step in status.json."""


class Tracker:
    """Write one JSON line and the TensorBoard scalars per call of `log`; on other ranks nothing.

    Its methods raise UserError if the disk is full.
    """

    def __init__(self, run: Path, is_rank0: bool) -> None:
        self.path = run / "metrics.jsonl"
        self._status = run / STATUS
        self._status_time = 0.0
        self._is_rank0 = is_rank0
        self._stage, self._step = "", 0
        """The last step that was logged, and its stage."""
        self._events: EventFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._update_status()
            with suppress(OSError):  # a full disk: the error that ended the run was reported
                self._events.close()

    def begin(self, stage: str, step: int) -> None:
        """Start or resume a stage after `step`. Lines of later steps are dropped, as these steps run again."""
        if not self._is_rank0:
            return
        with self._report_full_disk():
            if self.path.exists():
                kept = [line for line in read_metrics(self.path) if line["stage"] != stage or line["step"] <= step]
                write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
            if self._events is not None:
                self._events.close()
            # One folder per stage: TensorBoard drops the later steps of a folder whatever their tags are.
            self._events = EventFile(self.path.parent / "tensorboard" / stage, step)
        self._stage, self._step = stage, step
        self._update_status(state=State.RUNNING)

    def log(self, stage: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Record the metrics of one step of a stage that has begun."""
        if self._events is None:
            return
        line = json.dumps({"stage": stage, "step": step, "epoch": round(epoch, 6), **values}) + "\n"
        with self._report_full_disk():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)  # closed at once: readers see whole lines
            self._events.add(step, {f"{stage}/{name}": value for name, value in values.items()})
        self._stage, self._step = stage, step
        if time.monotonic() - self._status_time >= STATUS_EVERY_S:
            self._update_status()

    def _update_status(self, **changes: Any) -> None:
        self._status_time = time.monotonic()
        update_status(self._status, stage=self._stage, step=self._step, **changes)

    @contextmanager
    def _report_full_disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UserError) as error:
            why = error.strerror or error if isinstance(error, OSError) else error
            raise UserError(
                f"{self.path.parent}: the metrics cannot be written ({why}); the last checkpoint is whole. Make room, "
                "then run the same command to resume"
            ) from None


class EventFile:
    """A new TensorBoard event file in the folder of its stage, flushed after each event. Raises OSError."""

    def __init__(self, folder: Path, last_step: int) -> None:
        """Open the file. TensorBoard drops the steps after `last_step` that earlier files of the folder hold."""
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{now:017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        self._write(Event(wall_time=now, step=last_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write the scalars of one step, by tag."""
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl; lines that a kill or a full disk cut off are skipped."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.keys() >= set(PLACE):
            lines.append(line)
    return lines


def long_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl in long format, one row per value: stage, step, epoch, metric, value."""
    return [
        {**{name: line[name] for name in PLACE}, "metric": name, "value": float(value)}
        for line in read_metrics(path)
        for name, value in line.items()
        if name not in PLACE
    ]
