"""The watchdog process beside each rank: it ends the rank when the run cannot continue.

Collectives may wait long for good reasons: a rank may compile, or write a checkpoint, while the others wait. So waiting
is not limited. From the rank's start on, before large imports, its watchdog observes it and its launcher. Once the
ranks have met, the watchdogs exchange heartbeats every second. A rank that is killed or stopped, a host or link that
goes down, and a launcher that dies are detected within seconds, however busy the ranks are. Imports no torch.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

import psutil

from model.watchdog.client import RESUME_HINT, print_error
from model.watchdog.heartbeat import SILENT, TICK, Heartbeats, LostError
from model.watchdog.launcher import Launcher

HUNG = 40
"""Ticks without any progress in its imports until a rank counts as lost."""
PROGRESS = 0.1
"""Seconds of CPU time that count as progress; a loop that polls a lock file uses less."""
DOUBT = 4
"""Ticks after a rank's error in which the loss of another rank may turn out to be its cause."""
GRACE = 10
"""Ticks in which a rank may end by itself after another rank's error, or without its launcher during its start-up."""
SAVING = 30
"""Ticks in which a rank whose launcher is gone may save a checkpoint and end."""


class WatchdogProcess:
    """Watch a rank until it is done or lost. Its messages come from standard input; times are in ticks."""

    def __init__(self, process_id: int, environment: Mapping[str, str]) -> None:
        """process_id: of the rank. environment: of the rank, as its launcher has set it."""
        rank, self._ranks = int(environment["RANK"]), int(environment.get("WORLD_SIZE", "1"))
        self._name = f"rank {rank} on {socket.gethostname()} (process {process_id})"
        self._reports = environment.get("LOCAL_RANK", "0") == "0"  # one watchdog per host prints losses
        self._process = psutil.Process(process_id)
        self._launcher = Launcher(process_id, environment)
        self._heartbeats = Heartbeats(rank, self._ranks, self._name)
        self._connected = True
        self._importing, self._idle = True, 0
        self._progress = (0.0, 0)  # CPU seconds and bytes read at the last progress
        self._stopped = 0
        self._ending = 0
        self._error, self._doubt = "", 0

    def watch(self) -> None:
        """Watch until the rank has ended by itself or was ended here."""
        try:
            while self._read_messages():
                self._check_rank()
                self._check_launcher()
                self._heartbeats.exchange()
            self._heartbeats.send("bye")
        except LostError as lost:
            # Before the watchdogs have connected, each one has to report.
            if not lost.reported and (self._reports or not self._heartbeats.started):
                print_error(f"lost: {lost.what}; {RESUME_HINT}")
            self._heartbeats.send("lost", lost.what, lost.grace)
            if lost.reported:
                _answer("no other rank was lost")
            self._end_rank(lost.grace)
        self._heartbeats.close()

    def _read_messages(self) -> bool:
        """Wait one tick for messages of the rank. Returns False if it is done."""
        if not self._connected:
            time.sleep(TICK)
        elif select.select([0], [], [], TICK)[0]:
            text = os.read(0, 65536).decode(errors="replace")
            self._connected = bool(text)
            for line in text.splitlines():
                word, _, what = line.partition(" ")
                if word == "bye":
                    return False
                self._handle(word, what)
        if self._error:
            self._doubt -= 1
            if self._doubt <= 0:
                raise LostError(f"{self._name}: {self._error}", GRACE, reported=True)
        return True

    def _handle(self, word: str, what: str) -> None:
        """Handle one message of the rank."""
        if word == "imported":
            self._importing = False
        elif word == "listen":
            _answer(str(self._heartbeats.listen(*json.loads(what))))
        elif word == "join":
            self._heartbeats.join(*json.loads(what))
        elif word == "error":  # a user error, which the rank itself reports and no other rank has caused
            raise LostError(f"{self._name}: {what}", GRACE, reported=True)
        elif word == "failed":
            self._error, self._doubt = what, DOUBT if self._heartbeats.started else 0

    def _check_rank(self) -> None:
        try:
            status = self._process.status()
            if self._importing:
                self._check_progress(status)
        except psutil.NoSuchProcess:
            status = psutil.STATUS_ZOMBIE
        if status == psutil.STATUS_ZOMBIE and not self._error:
            raise LostError(f"{self._name}: killed, out of memory, or crashed", reported=self._ending > 0)
        # A stopped rank without others keeps nobody waiting.
        self._stopped = self._stopped + 1 if status == psutil.STATUS_STOPPED and self._ranks > 1 else 0
        if self._stopped >= SILENT:
            raise LostError(f"{self._name}: stopped (SIGSTOP) for {SILENT * TICK:.0f} s")

    def _check_progress(self, status: str) -> None:
        """Detect hanging imports: slow ones, as from a slow disk, still compute or read."""
        times, read_bytes = self._process.cpu_times(), 0
        with suppress(AttributeError, psutil.AccessDenied):  # not every system tells it
            counters = self._process.io_counters()
            read_bytes = counters.read_chars + counters.read_bytes
        cpu_s = times.user + times.system
        if cpu_s - self._progress[0] >= PROGRESS or read_bytes != self._progress[1]:
            self._idle, self._progress = 0, (cpu_s, read_bytes)
        elif status != psutil.STATUS_STOPPED:
            self._idle += 1
        if self._idle >= HUNG:
            raise LostError(f"{self._name}: no progress in its start-up for {HUNG * TICK:.0f} s (a disk that hangs?)")

    def _check_launcher(self) -> None:
        """End a rank without its launcher. If it has met the others, it may save a checkpoint."""
        if not self._ending:
            if not self._launcher.is_gone():
                return
            if self._reports:
                print_error(f"lost: the launcher of {self._name}; {RESUME_HINT}")
            with suppress(psutil.NoSuchProcess):
                self._process.terminate()
        self._ending += 1
        if self._ending >= (SAVING if self._heartbeats.started else GRACE):
            raise LostError(f"{self._name}: did not end on request", reported=not self._heartbeats.started)

    def _end_rank(self, grace: int) -> None:
        with suppress(psutil.Error):
            if grace:
                with suppress(psutil.TimeoutExpired):
                    self._process.wait(grace * TICK)
            self._process.kill()


def _answer(line: str) -> None:
    """Send a line to the rank, if it still runs."""
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())


def main() -> None:
    """Watch the rank whose process id is on the command line."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as SIGINT and SIGTERM, which it inherits blocked
    with suppress(psutil.NoSuchProcess):  # the rank has ended already
        WatchdogProcess(int(sys.argv[1]), os.environ).watch()


if __name__ == "__main__":
    main()
