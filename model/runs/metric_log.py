"""Writer of the metric log of a run: metrics.jsonl and TensorBoard event files, by rank 0 only.

torch's SummaryWriter is not used because its thread prints a traceback when the disk is full.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from model.runs.metrics_file import read_metrics
from model.runs.status import STATUS, State, update_status
from pipeline.errors import UserError
from pipeline.io.atomic import fix_of_write_error, write_text

STATUS_EVERY_S = 15.0
"""Time between two updates of the step in status.json."""


class Tracker:
    """Writer of the metric log on rank 0; it does nothing on other ranks.

    Each call of `log` writes one JSON line and the TensorBoard scalars. All methods raise UserError on a full disk.
    """

    def __init__(self, run: Path, is_rank0: bool) -> None:
        self.path = run / "metrics.jsonl"
        self._is_rank0 = is_rank0
        self._events: RecordWriter | None = None
        self._last_step = ("", 0)  # stage and step
        self._status_time_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._update_status()
            with suppress(OSError):  # the disk is full, which was reported before
                self._events.close()

    def begin(self, stage: str, step: int) -> None:
        """Start or resume a stage after `step`. Lines of later steps are removed, as these steps run again."""
        if not self._is_rank0:
            return
        with self._report_full_disk():
            if self.path.exists():
                kept = [line for line in read_metrics(self.path) if line["stage"] != stage or line["step"] <= step]
                write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
            self._open_events(stage, step)
        self._last_step = (stage, step)
        self._update_status()

    def log(self, stage: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Write the metrics of one step. `begin` must have been called for its stage. epoch: epochs trained so far."""
        if self._events is None:
            return
        line = json.dumps({"stage": stage, "step": step, "epoch": round(epoch, 6), **values}) + "\n"
        scalars = [Summary.Value(tag=f"{stage}/{name}", simple_value=value) for name, value in values.items()]
        with self._report_full_disk():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)  # closed at once, so that readers see complete lines
            self._write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
        self._last_step = (stage, step)
        if time.monotonic() - self._status_time_s >= STATUS_EVERY_S:
            self._update_status()

    def _update_status(self) -> None:
        self._status_time_s = time.monotonic()
        stage, step = self._last_step
        update_status(self.path.with_name(STATUS), state=State.RUNNING, stage=stage, step=step)

    def _open_events(self, stage: str, last_step: int) -> None:
        """Open a new event file for a stage, which makes TensorBoard drop the steps after `last_step` of earlier files.

        Each stage has its own folder, as TensorBoard drops these steps for all tags of a folder.
        """
        if self._events is not None:
            self._events.close()
        folder, now = self.path.parent / "tensorboard" / stage, time.time()
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{now:017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._events = RecordWriter((folder / name).open("wb"))
        self._write_event(Event(wall_time=now, file_version="brain.Event:2"))
        self._write_event(Event(wall_time=now, step=last_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def _write_event(self, event: Event) -> None:
        assert self._events is not None
        self._events.write(event.SerializeToString())
        self._events.flush()

    @contextmanager
    def _report_full_disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UserError) as error:
            folder, cause = self.path.parent, error.strerror or error if isinstance(error, OSError) else error
            reason = error.__context__ if isinstance(error, UserError) else error  # atomic writes raise UserError
            problem = f"the metrics cannot be written ({cause}); the last checkpoint is intact"
            if not folder.is_dir():
                problem = "the run directory was removed during the training, with its checkpoints"
            raise UserError(f"{folder}: {problem}; fix: {fix_of_write_error(reason, folder)}") from None
