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
from contextlib import suppress
from dataclasses import dataclass

import psutil

from model.watchdog.client import RESUME_HINT, STOP_SIGNALS, WatchedRank, print_error
from model.watchdog.heartbeat import SILENT, TICK, Heartbeats, LostError
from model.watchdog.launcher import Launcher

HUNG = 40
"""Ticks without any progress in its imports until a rank counts as lost."""
PROGRESS = 0.1
"""Seconds of CPU time that count as progress; a loop that polls a lock file uses less."""
DOUBT = 4
"""Ticks after a rank's error in which the loss of another rank may turn out to be its cause."""
GRACE = 10
"""Ticks in which a rank may end by itself after another rank's error, or after a signal during its start-up."""
SAVING = 30
"""Ticks in which a rank whose launcher is gone may save a checkpoint and end."""


@dataclass
class _Rank:
    """The watched rank as this process sees it. Numbers are ticks, except in `progress`."""

    process: psutil.Process
    importing: bool = True
    """Until it tells that its imports are done."""
    progress: tuple[float, int] = (0.0, 0)
    """CPU seconds and bytes read at the last progress."""
    idle: int = 0
    stopped: int = 0
    end_requested: bool = False
    ending: int = 0
    doubt: int = 0
    error: str = ""


class WatchdogProcess:
    """Watch a rank until it is done or lost."""

    def __init__(self, watched: WatchedRank, launcher: Launcher, messages: int) -> None:
        """messages: file descriptor from which the rank's messages are read."""
        self.name = f"rank {watched.rank} on {socket.gethostname()} (process {watched.process})"
        self._watched = watched
        self._launcher = launcher
        self._messages = messages
        self._open = True
        self._rank = _Rank(psutil.Process(watched.process))
        self._heartbeats: Heartbeats | None = None

    def request_end(self, *_: object) -> None:
        """Handle a signal: whoever ends the rank also signals its watchdog. A rank that has met the others may save."""
        self._rank.end_requested |= self._heartbeats is None

    def watch(self) -> None:
        """Watch until the rank has ended by itself or was ended here."""
        try:
            while self._tick():
                pass
            if self._heartbeats is not None:
                self._heartbeats.send_goodbye()
        except LostError as lost:
            # Before the watchdogs have connected, each one has to report.
            if not lost.reported and (self._watched.reports or self._heartbeats is None):
                print_error(f"lost: {lost.what}; {RESUME_HINT}")
            if self._heartbeats is not None:
                self._heartbeats.send_lost(lost)
            if lost.reported:
                _answer("no other rank was lost")
            self._end_rank(lost.grace)
        if self._heartbeats is not None:
            self._heartbeats.close()

    def _tick(self) -> bool:
        if not self._read_messages():
            return False
        self._check_rank()
        self._check_launcher()
        if self._heartbeats is not None:
            self._heartbeats.exchange()
        return True

    def _read_messages(self) -> bool:
        """Wait one tick for messages of the rank. Returns False if it is done."""
        if not self._open:
            time.sleep(TICK)
        elif select.select([self._messages], [], [], TICK)[0]:
            text = os.read(self._messages, 65536).decode(errors="replace")
            self._open = bool(text)
            if not self._open and not self._rank.error:
                raise self._killed()
            for line in text.splitlines():
                word, _, what = line.partition(" ")
                if word == "bye":
                    return False
                self._handle(word, what)
        if self._rank.error:
            self._rank.doubt -= 1
            if self._rank.doubt <= 0:
                raise LostError(f"{self.name}: {self._rank.error}", GRACE, reported=True)
        return True

    def _handle(self, word: str, what: str) -> None:
        """Handle one message of the rank."""
        if word == "imported":
            self._rank.importing = False
        elif word == "listen":
            self._heartbeats = self._make_heartbeats()
            _answer(str(self._heartbeats.listen(*json.loads(what))))
        elif word == "join":
            self._heartbeats = self._make_heartbeats()
            self._heartbeats.join(*json.loads(what))
        elif word == "error":  # a user error, which the rank itself reports and no other rank has caused
            raise LostError(f"{self.name}: {what}", GRACE, reported=True)
        elif word == "failed":
            self._rank.error, self._rank.doubt = what, 0 if self._heartbeats is None else DOUBT

    def _make_heartbeats(self) -> Heartbeats:
        return Heartbeats(self._watched.rank, self._watched.ranks, self.name)

    def _check_rank(self) -> None:
        rank = self._rank
        try:
            status = rank.process.status()
            if rank.importing:
                self._check_progress(status)
        except psutil.NoSuchProcess:
            status = psutil.STATUS_ZOMBIE
        if status == psutil.STATUS_ZOMBIE and not rank.error:
            raise self._killed()
        # A stopped rank without others keeps nobody waiting.
        rank.stopped = rank.stopped + 1 if status == psutil.STATUS_STOPPED and self._watched.ranks > 1 else 0
        if rank.stopped >= SILENT:
            raise LostError(f"{self.name}: stopped (SIGSTOP) for {SILENT * TICK:.0f} s")

    def _check_progress(self, status: str) -> None:
        """Detect hanging imports: slow ones, as from a slow disk, still compute or read."""
        rank, progress = self._rank, _progress(self._rank.process)
        if progress[0] - rank.progress[0] >= PROGRESS or progress[1] != rank.progress[1]:
            rank.idle, rank.progress = 0, progress
        elif status != psutil.STATUS_STOPPED:
            rank.idle += 1
        if rank.idle >= HUNG:
            raise LostError(f"{self.name}: no progress in its start-up for {HUNG * TICK:.0f} s (a disk that hangs?)")

    def _check_launcher(self) -> None:
        """End the rank without its launcher or on request. A rank that has met the others may save a checkpoint."""
        rank = self._rank
        if not rank.ending and self._launcher.is_gone():
            rank.end_requested = True
            if self._watched.reports:
                print_error(f"lost: the launcher of {self.name}; {RESUME_HINT}")
            with suppress(psutil.NoSuchProcess):
                rank.process.terminate()
        rank.ending += rank.end_requested
        if rank.ending >= (GRACE if self._heartbeats is None else SAVING):
            raise LostError(f"{self.name}: did not end on request", reported=self._heartbeats is None)

    def _killed(self) -> LostError:
        return LostError(f"{self.name}: killed, out of memory, or crashed", reported=self._rank.end_requested)

    def _end_rank(self, grace: int) -> None:
        with suppress(psutil.Error):
            if grace:
                with suppress(psutil.TimeoutExpired):
                    self._rank.process.wait(grace * TICK)
            self._rank.process.kill()


def _progress(process: psutil.Process) -> tuple[float, int]:
    """Return CPU seconds, and bytes read if the system tells them."""
    times, read = process.cpu_times(), 0
    with suppress(AttributeError, psutil.AccessDenied):
        counters = process.io_counters()
        read = counters.read_chars + counters.read_bytes
    return times.user + times.system, read


def _answer(line: str) -> None:
    """Send a line to the rank, if it still runs."""
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())


def main() -> None:
    """Watch the rank that the command line describes."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a watchdog ends with its rank
    watched = WatchedRank(**json.loads(sys.argv[1]))
    with suppress(psutil.NoSuchProcess):  # the rank has ended already
        process = WatchdogProcess(watched, Launcher(watched.process, os.environ), 0)
        for number in STOP_SIGNALS:
            signal.signal(number, process.request_end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        process.watch()


if __name__ == "__main__":
    main()
