"""A rank's own end of its guard: starts it before anything that takes time, tells it how the rank ends.

This is the first that a rank imports, so it imports little.
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
from dataclasses import asdict, dataclass

from pipeline.errors import UserError
from pipeline.paths import ROOT

GO_ON = "this run ends; the same command goes on from the last checkpoint"
POLITE = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask a process to end."""
ANSWER = 20.0
"""Seconds that a guard may take for an answer."""


@dataclass(frozen=True)
class Post:
    """Which rank is guarded. All fields are plain values."""

    rank: int
    ranks: int
    process: int
    """The rank's process id."""
    speaks: bool
    """Whether its guard prints what was lost: one a host."""


class Guarded:
    """This process with a guard beside it."""

    def __init__(self, post: Post) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        # -P: the working directory is no place for modules.
        words = [sys.executable, "-P", "-m", "model.watchdog.process", json.dumps(asdict(post))]
        # A signal to both waits until the guard can take it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)
        try:
            self._guard = subprocess.Popen(
                words, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._ending = False
        threading.Thread(target=self._mind, daemon=True).start()

    def waits(self) -> None:
        """The imports are done; from here on the rank may wait for others, with time limits of its own."""
        self._write("waits")

    def listen(self, address: str, key: str) -> int:
        """On rank 0: its guard waits at an address of this host for the others. Returns the port.

        Ends this process where the guard does not answer: frozen itself, it guards nothing.
        """
        self._write(f"listen {json.dumps([address, key])}")
        port = self._answer(ANSWER)
        if not port:
            self._ending = True
            self._guard.kill()
            raise SystemExit(f"lost: the guard of process {os.getpid()} does not answer; {GO_ON}")
        return int(port)

    def join(self, address: str, port: int, key: str) -> None:
        """On the others: their guards find that of rank 0 there."""
        self._write(f"join {json.dumps([address, port, key])}")

    def goodbye(self) -> None:
        """The rank has done its work."""
        self._ending = True
        self._write("bye")
        self._guard.wait()

    def ends_by(self, error: BaseException) -> None:
        """The rank ends by an error. Where that may come from the loss of another, this process is killed in here."""
        if self._ending:
            return
        if isinstance(error, SystemExit) and not error.code:
            self.goodbye()
            return
        self._ending = True
        if isinstance(error, UserError | KeyboardInterrupt | SystemExit):
            self._write(f"error {_one_line(str(error) or 'interrupted')}")
        else:
            self._write(f"failed {_one_line(f'{type(error).__name__}: {error}')}")
            self._answer(None)

    def _write(self, line: str) -> None:
        with suppress(OSError):
            assert self._guard.stdin is not None
            self._guard.stdin.write(f"{line}\n".encode())
            self._guard.stdin.flush()

    def _answer(self, seconds: float | None) -> bytes:
        """A line of the guard; nothing where it does not answer in time, or has ended."""
        answers = self._guard.stdout
        assert answers is not None
        return answers.readline() if select.select([answers], [], [], seconds)[0] else b""

    def _mind(self) -> None:
        """A rank without its guard could wait for ever."""
        self._guard.wait()
        if not self._ending:
            say(f"lost: the guard of process {os.getpid()}; {GO_ON}")
            os._exit(1)


@contextmanager
def guarded(environment: Mapping[str, str]) -> Iterator[Guarded | None]:
    """This process with a guard until the block ends, where a launcher started it as one of several ranks."""
    if "RANK" not in environment:
        yield None
        return
    rank, ranks = int(environment["RANK"]), int(environment.get("WORLD_SIZE", "1"))
    guard = Guarded(Post(rank, ranks, os.getpid(), environment.get("LOCAL_RANK", "0") == "0"))
    try:
        yield guard
    except BaseException as error:
        guard.ends_by(error)
        raise
    guard.goodbye()


def say(text: str) -> None:
    """A line on standard error, if anybody still reads it."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
