"""A small process beside each rank that ends it when the run cannot go on, so that no rank waits for a dead one.

Collectives wait long, and rightly: a rank may compile, or write a checkpoint, while the others wait for it. So it is
not the waiting that is limited. From the rank's first moment on, before anything large is imported, its guard looks at
it and at its launcher; as soon as the ranks have met, the guards send each other a word every second. So a rank that is
killed or stopped, a host or link that goes down, a launcher that dies is noticed in seconds, however busy the ranks
are. Nothing of torch is imported here.
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

from model.watchdog.client import GO_ON, POLITE, Post, say
from model.watchdog.heartbeat import SILENT, TICK, LostError, Peers
from model.watchdog.launcher import Launcher

HUNG = 40
"""Ticks without any progress in its imports until a rank is given up."""
PROGRESS = 0.1
"""Seconds of processor time that count as progress; a loop that only looks for a lock file uses less."""
DOUBT = 4
"""Ticks in which a rank's error may turn out to come from the loss of another rank."""
GRACE = 6
"""Ticks in which a rank may end by itself after another one's error, or in its start-up when it is asked to."""
PARTING = 30
"""Ticks in which a rank whose launcher is gone may save a checkpoint and end."""


@dataclass
class _Rank:
    """The guarded rank as this process sees it. Numbers of ticks, but for `done`."""

    process: psutil.Process
    importing: bool = True
    """Until it says that it waits for the others."""
    done: tuple[float, int] = (0.0, 0)
    """Processor seconds and bytes read when there last was progress."""
    idle: int = 0
    stopped: int = 0
    asked_to_end: bool = False
    parting: int = 0
    doubt: int = 0
    error: str = ""


class Guard:
    """Watches until the rank says goodbye or is lost."""

    def __init__(self, post: Post, launcher: Launcher, words: int) -> None:
        """words: where the rank's own words are read, a file descriptor."""
        self.name = f"rank {post.rank} on {socket.gethostname()} (process {post.process})"
        self._post = post
        self._launcher = launcher
        self._words = words
        self._open = True
        self._rank = _Rank(psutil.Process(post.process))
        self._peers: Peers | None = None

    def hurry(self, *_: object) -> None:
        """The signals' handler: who ends the rank signals its guard, too. One that has begun may save a checkpoint."""
        self._rank.asked_to_end |= self._peers is None

    def watch(self) -> None:
        """Return when the rank has ended as it should, or was ended here."""
        try:
            while self._tick():
                pass
            if self._peers is not None:
                self._peers.tell_goodbye()
        except LostError as lost:
            # Before the guards have met, none hears it from another.
            if not lost.said and (self._post.speaks or self._peers is None):
                say(f"lost: {lost.what}; {GO_ON}")
            if self._peers is not None:
                self._peers.tell_lost(lost)
            if lost.said:
                _answer("not by another's loss")
            self._end_rank(lost.grace)
        if self._peers is not None:
            self._peers.part()

    def _tick(self) -> bool:
        if not self._hear_rank():
            return False
        self._look_at_rank()
        self._look_at_launcher()
        if self._peers is not None:
            self._peers.exchange()
        return True

    def _hear_rank(self) -> bool:
        """Wait a tick for the rank's word. False: it said goodbye."""
        if not self._open:
            time.sleep(TICK)
        elif select.select([self._words], [], [], TICK)[0]:
            text = os.read(self._words, 65536).decode(errors="replace")
            self._open = bool(text)
            if not self._open and not self._rank.error:
                raise self._killed()
            for line in text.splitlines():
                word, _, what = line.partition(" ")
                if word == "bye":
                    return False
                self._take(word, what)
        if self._rank.error:
            self._rank.doubt -= 1
            if self._rank.doubt <= 0:
                raise LostError(f"{self.name}: {self._rank.error}", GRACE, said=True)
        return True

    def _take(self, word: str, what: str) -> None:
        """What the rank has to say."""
        if word == "waits":
            self._rank.importing = False
        elif word == "listen":
            address, key = json.loads(what)
            self._peers = Peers(self._post.rank, self._post.ranks, self.name)
            _answer(str(self._peers.listen(address, key)))
        elif word == "join":
            address, port, key = json.loads(what)
            self._peers = Peers(self._post.rank, self._post.ranks, self.name)
            self._peers.join(address, port, key)
        elif word == "error":  # what the user can mend: said by the rank itself, nobody else is to blame
            raise LostError(f"{self.name}: {what}", GRACE, said=True)
        elif word == "failed":
            self._rank.error, self._rank.doubt = what, 0 if self._peers is None else DOUBT

    def _look_at_rank(self) -> None:
        rank = self._rank
        try:
            status = rank.process.status()
            if rank.importing:
                self._look_at_progress(status)
        except psutil.NoSuchProcess:
            status = psutil.STATUS_ZOMBIE
        if status == psutil.STATUS_ZOMBIE and not rank.error:
            raise self._killed()
        # Alone, a stopped rank keeps nobody waiting.
        rank.stopped = rank.stopped + 1 if status == psutil.STATUS_STOPPED and self._post.ranks > 1 else 0
        if rank.stopped >= SILENT:
            raise LostError(f"{self.name}: stopped (SIGSTOP) for {SILENT * TICK:.0f} s")

    def _look_at_progress(self, status: str) -> None:
        """Imports may take long, from a slow disk; but they compute or read."""
        rank, done = self._rank, _done(self._rank.process)
        if done[0] - rank.done[0] >= PROGRESS or done[1] != rank.done[1]:
            rank.idle, rank.done = 0, done
        elif status != psutil.STATUS_STOPPED:
            rank.idle += 1
        if rank.idle >= HUNG:
            raise LostError(f"{self.name}: no progress in its start-up for {HUNG * TICK:.0f} s (a disk that is away?)")

    def _look_at_launcher(self) -> None:
        """Without a launcher, or when asked to, the rank ends; it may save a checkpoint before, where it has begun."""
        rank = self._rank
        if not rank.parting and self._launcher.is_gone():
            rank.asked_to_end = True
            if self._post.speaks:
                say(f"lost: the launcher of {self.name}; {GO_ON}")
            with suppress(psutil.NoSuchProcess):
                rank.process.terminate()
        rank.parting += rank.asked_to_end
        if rank.parting >= (GRACE if self._peers is None else PARTING):
            raise LostError(f"{self.name}: it did not end when it was asked to", said=self._peers is None)

    def _killed(self) -> LostError:
        return LostError(f"{self.name}: killed, out of memory, or crashed", said=self._rank.asked_to_end)

    def _end_rank(self, grace: int) -> None:
        with suppress(psutil.Error):
            if grace:
                with suppress(psutil.TimeoutExpired):
                    self._rank.process.wait(grace * TICK)
            self._rank.process.kill()


def _done(process: psutil.Process) -> tuple[float, int]:
    """Processor seconds, and bytes read where the system says so."""
    times, read = process.cpu_times(), 0
    with suppress(AttributeError, psutil.AccessDenied):
        counters = process.io_counters()
        read = counters.read_chars + counters.read_bytes
    return times.user + times.system, read


def _answer(line: str) -> None:
    """To the rank, if it is still there."""
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())


def main() -> None:
    """Guard the rank that the command line describes."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a guard ends with its rank
    post = Post(**json.loads(sys.argv[1]))
    with suppress(psutil.NoSuchProcess):  # the rank has ended already
        guard = Guard(post, Launcher(post.process, os.environ), 0)
        for number in POLITE:
            signal.signal(number, guard.hurry)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, POLITE)
        guard.watch()


if __name__ == "__main__":
    main()
