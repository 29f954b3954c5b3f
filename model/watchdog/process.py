"""Watchdog process beside each rank, which ends the rank when the run cannot continue.

Ranks may wait long for a rank that compiles or writes a checkpoint, so short timeouts of collectives do not help. The
watchdog observes its rank and the launcher from the start of the rank on, before large imports. After the rendezvous,
the watchdogs exchange heartbeats every second. So a killed or stopped rank, a host or link that is down, and a dead
launcher are detected within seconds, even if the ranks are busy. This module does not import torch.
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
from model.watchdog.heartbeat import SILENT_TICKS, TICK_S, Heartbeats, LostError
from model.watchdog.launcher import Launcher

HANG_TICKS = 40
"""Ticks without progress in its imports until a rank counts as lost."""
PROGRESS_CPU_S = 0.1
"""CPU time that counts as progress, in seconds; a loop that polls a lock file uses less."""
DOUBT_TICKS = 4
"""Ticks after the error of a rank in which a lost rank may turn out to be its cause."""
GRACE_TICKS = 10
"""Ticks in which a rank may end by itself after the error of another rank, or if its launcher dies during start-up."""
SAVE_TICKS = 30
"""Ticks in which a rank may save a checkpoint and end after its launcher has died."""


class WatchdogProcess:
    """Watcher of a rank until it is done or lost. The rank's messages come from standard input; times are in ticks."""

    def __init__(self, process_id: int, environment: Mapping[str, str]) -> None:
        """process_id, environment: of the rank, as its launcher has set them."""
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
        """Watch until the rank ends by itself or is ended here."""
        try:
            while self._read_messages():
                self._check_rank()
                self._check_launcher()
                self._heartbeats.exchange()
            self._heartbeats.send("bye")
        except LostError as lost:
            # Before the watchdogs are connected, each of them must report.
            if not lost.reported and (self._reports or not self._heartbeats.started):
                print_error(f"lost: {lost.problem}; {RESUME_HINT}")
            self._heartbeats.send("lost", lost.problem, lost.grace)
            if lost.reported:
                _send_line("no other rank was lost")
            self._end_rank(lost.grace)
        self._heartbeats.close()

    def _read_messages(self) -> bool:
        """Wait one tick for messages of the rank. Returns False if it is done."""
        if not self._connected:
            time.sleep(TICK_S)
        elif select.select([0], [], [], TICK_S)[0]:
            text = os.read(0, 65536).decode(errors="replace")
            self._connected = bool(text)
            for line in text.splitlines():
                kind, _, content = line.partition(" ")
                if kind == "bye":
                    return False
                self._handle(kind, content)
        if self._error:
            self._doubt -= 1
            if self._doubt <= 0:
                raise LostError(f"{self._name}: {self._error}", GRACE_TICKS, reported=True)
        return True

    def _handle(self, kind: str, content: str) -> None:
        """Handle one message of the rank."""
        if kind == "imported":
            self._importing = False
        elif kind == "listen":
            _send_line(str(self._heartbeats.listen(*json.loads(content))))
        elif kind == "join":
            self._heartbeats.join(*json.loads(content))
        elif kind == "error":  # a user error, which the rank reports itself and no other rank has caused
            raise LostError(f"{self._name}: {content}", GRACE_TICKS, reported=True)
        elif kind == "failed":
            self._error, self._doubt = content, DOUBT_TICKS if self._heartbeats.started else 0

    def _check_rank(self) -> None:
        try:
            status = self._process.status()
            if self._importing:
                self._check_progress(status)
        except psutil.NoSuchProcess:
            status = psutil.STATUS_ZOMBIE
        if status == psutil.STATUS_ZOMBIE and not self._error:
            raise LostError(f"{self._name}: killed, out of memory or crashed", reported=self._ending > 0)
        # A single rank may be stopped, as no other rank waits for it.
        self._stopped = self._stopped + 1 if status == psutil.STATUS_STOPPED and self._ranks > 1 else 0
        if self._stopped >= SILENT_TICKS:
            raise LostError(f"{self._name}: stopped (SIGSTOP) for {SILENT_TICKS * TICK_S:.0f} s")

    def _check_progress(self, status: str) -> None:
        """Detect hanging imports. Slow imports, for example from a slow disk, still use CPU time or read bytes."""
        times, read_bytes = self._process.cpu_times(), 0
        with suppress(AttributeError, psutil.AccessDenied):  # not available on every system
            counters = self._process.io_counters()
            read_bytes = counters.read_chars + counters.read_bytes
        cpu_s = times.user + times.system
        if cpu_s - self._progress[0] >= PROGRESS_CPU_S or read_bytes != self._progress[1]:
            self._idle, self._progress = 0, (cpu_s, read_bytes)
        elif status != psutil.STATUS_STOPPED:
            self._idle += 1
        if self._idle >= HANG_TICKS:
            raise LostError(
                f"{self._name}: no progress in its start-up for {HANG_TICKS * TICK_S:.0f} s, perhaps a hanging disk"
            )

    def _check_launcher(self) -> None:
        """End the rank if its launcher has died. After the rendezvous it may save a checkpoint first."""
        if not self._ending:
            if not self._launcher.is_gone():
                return
            if self._reports:
                print_error(
                    f"stopping: the launcher of {self._name} has ended, because it was stopped or killed; the ranks "
                    "save a checkpoint if they can; run the same command to resume"
                )
            with suppress(psutil.NoSuchProcess):
                self._process.terminate()
        self._ending += 1
        if self._ending >= (SAVE_TICKS if self._heartbeats.started else GRACE_TICKS):
            raise LostError(f"{self._name}: did not end after SIGTERM", reported=not self._heartbeats.started)

    def _end_rank(self, grace: int) -> None:
        with suppress(psutil.Error):
            if grace:
                with suppress(psutil.TimeoutExpired):
                    self._process.wait(grace * TICK_S)
            self._process.kill()


def _send_line(line: str) -> None:
    """Send a line to the rank, unless it has ended."""
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())


def main() -> None:
    """Watch the rank whose process id is on the command line."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # SIGINT and SIGTERM are blocked, which the watchdog inherits
    with suppress(psutil.NoSuchProcess):  # the rank has ended already
        WatchdogProcess(int(sys.argv[1]), os.environ).watch()


if __name__ == "__main__":
    main()
