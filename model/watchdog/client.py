"""Client of the watchdog: a rank starts its watchdog before slow imports, and reports how it ends.

A rank imports this module first, so it imports little itself.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from model.runs.status import ExitCode
from pipeline.errors import UserError
from pipeline.paths import ROOT

RESUME_HINT = "this run ends; fix: run the same command to resume from the last checkpoint"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals on which a training saves a checkpoint and ends. Slurm sends SIGUSR1 before a time limit, if asked to."""
ANSWER_TIMEOUT_S = 20.0


class Watchdog:
    """Handle of the watchdog process of this process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """environment: holds RANK, WORLD_SIZE and LOCAL_RANK of this process; the watchdog inherits it."""
        path = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        # -P: a module in the working directory must not shadow ours.
        command = [sys.executable, "-P", "-m", "model.watchdog.process", str(os.getpid())]
        # The watchdog blocks these signals, as it ends with its rank, which launchers kill 30 s after a signal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._process = subprocess.Popen(
                command, env={**environment, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._ending = False
        threading.Thread(target=self._end_with_watchdog, daemon=True).start()

    def report_imports_done(self) -> None:
        """Report the end of the imports. From now on the rank may wait for others, with its own timeouts."""
        self._send("imported")

    def listen(self, address: str, key: str) -> int:
        """Make rank 0's watchdog listen for the others at an address of this host. Returns the port.

        Raises SystemExit if the watchdog does not answer, as it may be frozen itself.
        """
        self._send(f"listen {json.dumps([address, key])}")
        port = self._read_answer(ANSWER_TIMEOUT_S)
        if not port:
            self._ending = True
            self._process.kill()
            raise SystemExit(f"lost: watchdog of process {os.getpid()} does not answer; {RESUME_HINT}")
        return int(port)

    def join(self, address: str, port: int, key: str) -> None:
        """Make the watchdog of another rank connect to the watchdog of rank 0."""
        self._send(f"join {json.dumps([address, port, key])}")

    def finish(self) -> None:
        """Report that the rank is finished, and wait for the watchdog to end."""
        self._ending = True
        self._send("bye")
        self._process.wait()

    def report_error(self, error: BaseException) -> None:
        """Report the error that ends the rank. This process is killed if the loss of another rank caused it."""
        if self._ending:
            return
        if isinstance(error, SystemExit) and not error.code:
            self.finish()
            return
        self._ending = True
        expected = isinstance(error, UserError | KeyboardInterrupt | SystemExit)
        text = (str(error) or "interrupted") if expected else f"{type(error).__name__}: {error}"
        self._send(f"{'error' if expected else 'failed'} {' '.join(text.split())[:500]}")
        if not expected:
            self._read_answer(None)

    def _send(self, line: str) -> None:
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def _read_answer(self, timeout_s: float | None) -> bytes:
        """Read a line of the watchdog. Returns an empty text if it does not answer in time, or has ended."""
        answers = self._process.stdout
        assert answers is not None
        return answers.readline() if select.select([answers], [], [], timeout_s)[0] else b""

    def _end_with_watchdog(self) -> None:
        """End this process when its watchdog ends, because a rank without a watchdog could wait forever."""
        self._process.wait()
        if not self._ending:
            print_error(f"lost: watchdog of process {os.getpid()} exited; {RESUME_HINT}")
            os._exit(ExitCode.FAILED)


@contextmanager
def start_watchdog(environment: Mapping[str, str]) -> Iterator[Watchdog | None]:
    """Run a block with a watchdog, or without one (None) if no launcher started this process as a rank."""
    if "RANK" not in environment:
        yield None
        return
    watchdog = Watchdog(environment)
    try:
        yield watchdog
    except BaseException as error:
        watchdog.report_error(error)
        raise
    watchdog.finish()


def print_error(text: str) -> None:
    """Print a line to standard error, unless that is closed."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
