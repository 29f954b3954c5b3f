"""Status of a training for other programs: status.json and the exit codes of train.py.

Decisions depend on these codes only, never on printed text. Imports no torch.
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
"""Variable with the id of one launch, set by relaunch. DeepSpeed passes only variables PYTHON* on to every host."""


class State(StrEnum):
    """State of a training. A process that is killed leaves the state it had."""

    STARTING = "starting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    USER_ERROR = "user_error"
    FINISHED = "finished"


class ExitCode(IntEnum):
    """Exit codes of train.py."""

    FINISHED = 0
    """Also after a signal, if a checkpoint was written: the state is `interrupted` then."""
    USER_ERROR = 1
    """A restart does not help before the user has fixed the cause."""
    USAGE = 2
    """A user error in the command line, as in argparse."""
    FAILED = 70
    """Any other failure, as EX_SOFTWARE of sysexits.h: a restart may help."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM before the first step to save, as in shells."""


class RunStatus:
    """Record the start and the end of a block in a status file. path: None for no file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.state = State.FINISHED
        """State after a block that raises nothing."""
        self.exit_code = int(ExitCode.FINISHED)

    def __enter__(self) -> Self:
        if self._path is not None:
            update_status(self._path, state=State.STARTING, exit_code=None)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self.state, self.exit_code = end_of(error)
        if self._path is not None:
            update_status(self._path, state=self.state, exit_code=self.exit_code)


def end_of(error: BaseException) -> tuple[State, int]:
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


def update_status(path: Path, **changes: Any) -> None:
    """Change fields of a status file atomically. A full disk does not end the run."""
    process = {"launch": os.environ.get(LAUNCH), "host": socket.gethostname(), "process": os.getpid()}
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    status = {"stage": None, "step": None, **read_status(path), **changes, **process, "time": now}
    with suppress(UserError):
        write_text(path, json.dumps(status) + "\n")


def read_status(path: Path) -> dict[str, Any]:
    """Read a status file; empty if there is none, or it is corrupt."""
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def launch_folder(launch: str) -> Path:
    """Return the folder for the records of one launch on this host. TMPDIR may differ between two ssh logins."""
    return Path("/tmp") / f"promoter-bert-{launch}"


def launch_record(environment: Mapping[str, str]) -> Path | None:
    """Return the status file of this process for the relaunch command that started it; None without one.

    It is on the host's own disk. The one in the run directory is rank 0's alone, and lacks errors that occur before
    that directory is known or when its disk is full.
    """
    launch = environment.get(LAUNCH)
    return launch_folder(launch) / f"{socket.gethostname()}-{os.getpid()}.json" if launch else None
