"""Status of a training for other programs: status.json and the exit codes of train.py.

Programs decide by these codes only, never by printed text. This module does not import torch.
"""

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, Self

from pipeline.errors import UserError
from pipeline.io.atomic import write_text

STATUS = "status.json"
"""Status file of a run directory, written by rank 0 while it holds the directory's lock."""
LAUNCH = "PYTHON_PROMOTER_BERT_LAUNCH"
"""Environment variable with the id of a launch, set by relaunch. DeepSpeed forwards only variables PYTHON* to hosts."""


class State(StrEnum):
    """State of a training. A killed process leaves the state that it had."""

    STARTING = "starting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    USER_ERROR = "user_error"
    FINISHED = "finished"


class ExitCode(IntEnum):
    """Exit codes of train.py."""

    FINISHED = 0
    """Also after a signal if a checkpoint was written; the state is `interrupted` then."""
    USER_ERROR = 1
    """The user must fix the cause before a restart."""
    USAGE = 2
    """Error in the command line, as in argparse."""
    FAILED = 70
    """Any other failure, after which a restart may help; EX_SOFTWARE of sysexits.h."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM before the first checkpoint, as in shells."""


class RunStatus:
    """Context manager that records the start and the end of a block in a status file. path: None for no file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.state = State.FINISHED
        """State to record after a block that raises nothing."""
        self.exit_code = int(ExitCode.FINISHED)

    def __enter__(self) -> Self:
        if self._path is not None:
            update_status(self._path, state=State.STARTING, exit_code=None)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self.state, self.exit_code = classify_end(error)
        if self._path is not None:
            update_status(self._path, state=self.state, exit_code=self.exit_code)


def classify_end(error: BaseException) -> tuple[State, int]:
    """Map the exception that ends a training to its state and exit code."""
    if isinstance(error, UserError):
        return State.USER_ERROR, ExitCode.USER_ERROR
    if isinstance(error, KeyboardInterrupt):
        return State.INTERRUPTED, ExitCode.INTERRUPTED
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return State.FINISHED, ExitCode.FINISHED
    if isinstance(error, SystemExit) and error.code == ExitCode.USAGE:
        return State.USER_ERROR, ExitCode.USAGE
    return State.FAILED, ExitCode.FAILED


def describe_interruption(run: Path) -> str:
    """Describe the next step after an interruption. run: its directory, in which there may be checkpoints."""
    if any(run.glob("checkpoints/*/step-*")):
        return "interrupted; run the same command to resume from the last checkpoint"
    return "interrupted before the first checkpoint; run the same command to start again"


def update_status(path: Path, **changes: Any) -> None:
    """Change fields of a status file atomically. Errors of the disk are ignored, so that they do not end the run."""
    process = {"launch": os.environ.get(LAUNCH), "host": socket.gethostname(), "process": os.getpid()}
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    status = {"stage": None, "step": None, **read_status(path), **changes, **process, "time": now}
    with suppress(UserError):
        write_text(path, json.dumps(status) + "\n")


def read_status(path: Path) -> dict[str, Any]:
    """Read a status file. Returns an empty dictionary if it is missing or corrupt."""
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def locate_launch_folder(launch: str) -> Path:
    """Return the folder for the records of one launch on this host.

    It is in /tmp because TMPDIR may differ between two ssh logins.
    """
    return Path("/tmp") / f"promoter-bert-{launch}"


def locate_launch_record(environment: Mapping[str, str]) -> Path | None:
    """Return the path of this process's status file for the relaunch command that started it; None without one.

    It is on the local disk of the host. The status file in the run directory is written by rank 0 only, and lacks
    errors that occur before that directory is known or when its disk is full.
    """
    launch = environment.get(LAUNCH)
    return locate_launch_folder(launch) / f"{socket.gethostname()}-{os.getpid()}.json" if launch else None
