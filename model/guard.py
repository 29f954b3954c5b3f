"""A small process beside each rank that ends it when the run cannot go on, so that no rank waits for a dead one.

Collectives wait long, and rightly: a rank may compile, or write a checkpoint, while the others wait for it. So it is
not the waiting that is limited. The guards send each other a word every second, all by way of rank 0's, and each looks
at its own rank: a rank that is killed or stopped, a host or link that goes down, a launcher that dies is noticed in
seconds, however busy the ranks are. Nothing of torch is imported here.
"""

import json
import os
import queue
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

import psutil

TICK = 1.0
"""Seconds between two words."""
SILENT = 20
"""Ticks without a word from a guard, or with the rank stopped, until it is given up. Time in which this process was
itself stopped, as by Ctrl-Z, does not count."""
MEETING = 60
"""Ticks in which all guards must have met."""
DOUBT = 4
"""Ticks in which a rank's error may turn out to come from the loss of another rank."""
GRACE = 6
"""Ticks in which a rank may end by itself after another one's error."""
PARTING = 30
"""Ticks in which a rank whose launcher is gone may save a checkpoint and end."""
DEEPSPEED_LAUNCHER = "deepspeed.launcher.launch"
GO_ON = "this run ends; the same command goes on from the last checkpoint"


@dataclass(frozen=True)
class Post:
    """Which rank is guarded, and where its guard finds that of rank 0. All fields are plain values."""

    rank: int
    ranks: int
    process: int
    """The rank's process id."""
    address: str
    """Where rank 0's guard listens; on rank 0 the port is 0 and chosen there."""
    port: int
    key: str
    """Only who knows it is heard."""
    speaks: bool
    """Whether this guard prints what was lost: one a host."""


@dataclass
class _Peer:
    """Another guard. silent: ticks since its last word."""

    rank: int
    link: Connection
    name: str
    silent: int = 0


@dataclass
class _Rank:
    """The guarded rank as this process sees it."""

    process: psutil.Process
    launcher: int
    launched_by: int | None
    """The launcher's own parent, where that one's death means that the run is over."""
    stopped: int = 0
    parting: int = 0
    doubt: int = 0
    error: str = ""
    launcher_lost: bool = False


class LostError(Exception):
    """The run cannot go on. mine: the rank guarded here is the cause, and says so itself."""

    def __init__(self, what: str, grace: int = 0, mine: bool = False) -> None:
        super().__init__(what)
        self.what, self.grace, self.mine = what, grace, mine


class Guard:
    """Watches until the rank says goodbye or is lost."""

    def __init__(self, post: Post, words: int) -> None:
        self.post = post
        self.name = f"rank {post.rank} on {socket.gethostname()} (process {post.process})"
        self.peers: dict[int, _Peer] = {}
        self._words = words
        self._met: queue.SimpleQueue[_Peer] = queue.SimpleQueue()
        self._waiting = 0
        self._rank = _look_at(post.process)
        self._open = True

    def meet(self) -> int:
        """Begin to listen or to connect. Returns the port of rank 0's guard."""
        key = bytes.fromhex(self.post.key)
        if self.post.rank:
            threading.Thread(target=self._join, args=(key,), daemon=True).start()
            return self.post.port
        listener = Listener((self.post.address, 0), backlog=self.post.ranks, authkey=key)
        port = int(listener.address[1])
        threading.Thread(target=self._welcome, args=(listener,), daemon=True).start()
        return port

    def watch(self) -> None:
        """Return when the rank has ended as it should, or was ended here."""
        try:
            while self._tick():
                pass
            self._tell(("bye", "", 0))
        except LostError as lost:
            if self.post.speaks and not lost.mine:
                _say(f"lost: {lost.what}; {GO_ON}")
            self._tell(("lost", lost.what, lost.grace))
            if lost.mine:
                os.write(1, b"not by another's loss\n")
            self._end_rank(lost.grace)
        self._part()

    def _tick(self) -> bool:
        if not self._hear_rank():
            return False
        self._inspect()
        self._greet()
        for peer in list(self.peers.values()):
            self._hear(peer)
        self._tell(("here", "", 0))
        return True

    def _hear_rank(self) -> bool:
        """Wait a tick for the rank's word. False: it said goodbye."""
        if not self._open:
            time.sleep(TICK)
        elif select.select([self._words], [], [], TICK)[0]:
            text = os.read(self._words, 65536).decode(errors="replace")
            if "bye" in text.splitlines():
                return False
            if not text:
                self._open = False
                if not self._rank.error:
                    raise LostError(f"{self.name}: killed, out of memory, or crashed")
            for line in text.splitlines():
                kind, _, what = line.partition(" ")
                if kind == "error":  # what the user can mend: said by the rank itself, nobody else is to blame
                    raise LostError(f"{self.name}: {what}", GRACE, mine=True)
                if kind == "failed":
                    self._rank.error, self._rank.doubt = what, DOUBT
        if self._rank.error:
            self._rank.doubt -= 1
            if self._rank.doubt <= 0:
                raise LostError(f"{self.name}: {self._rank.error}", GRACE, mine=True)
        return True

    def _inspect(self) -> None:
        """Look at the rank's process and its launcher."""
        rank = self._rank
        try:
            status, parent = rank.process.status(), rank.process.ppid()
            orphan = parent != rank.launcher or (
                rank.launched_by is not None and psutil.Process(parent).ppid() != rank.launched_by
            )
        except psutil.NoSuchProcess:
            status, orphan = psutil.STATUS_ZOMBIE, False
        if status == psutil.STATUS_ZOMBIE and not rank.error:
            raise LostError(f"{self.name}: killed, out of memory, or crashed")
        # Alone, a stopped rank keeps nobody waiting.
        rank.stopped = rank.stopped + 1 if status == psutil.STATUS_STOPPED and self.post.ranks > 1 else 0
        if rank.stopped >= SILENT:
            raise LostError(f"{self.name}: stopped (SIGSTOP) for {SILENT * TICK:.0f} s")
        if orphan and not rank.launcher_lost:
            rank.launcher_lost = True
            _say(f"lost: the launcher of {self.name}; {GO_ON}")
            with suppress(psutil.NoSuchProcess):
                rank.process.terminate()  # it may save a checkpoint
        if rank.launcher_lost:
            rank.parting += 1
            if rank.parting >= PARTING:
                raise LostError(f"the launcher of {self.name}")

    def _greet(self) -> None:
        """Take up guards that have come; after a while those that have not are lost."""
        with suppress(queue.Empty):
            while True:
                peer = self._met.get_nowait()
                self.peers[peer.rank] = peer
                self._waiting = -1 if self._all_met() else self._waiting
        if self._waiting < 0 or self.post.ranks == 1:
            return
        self._waiting += 1
        if self._waiting >= MEETING:
            missing = [r for r in range(1, self.post.ranks) if r not in self.peers] if not self.post.rank else [0]
            names = ", ".join(map(str, missing))
            place = f"{self.post.address}:{self.post.port}" if self.post.rank else "the guard of rank 0"
            raise LostError(f"the guards of rank {names} and {self.post.rank} could not meet at {place} (a firewall?)")

    def _all_met(self) -> bool:
        return bool(self.post.rank) or len(self.peers) == self.post.ranks - 1

    def _hear(self, peer: _Peer) -> None:
        peer.silent += 1
        try:
            while peer.link.poll():
                peer.silent = 0
                kind, what, grace = peer.link.recv()
                if kind == "bye":
                    del self.peers[peer.rank]
                    return
                if kind == "lost":
                    raise LostError(what, grace)
        except (EOFError, OSError):
            raise LostError(f"{peer.name}: the connection broke off") from None
        if peer.silent >= SILENT:
            raise LostError(f"{peer.name}: no word for {SILENT * TICK:.0f} s; its host or the link is down or frozen")

    def _tell(self, word: tuple[str, str, int]) -> None:
        for peer in self.peers.values():
            with suppress(OSError):
                peer.link.send(word)

    def _end_rank(self, grace: int) -> None:
        with suppress(psutil.Error):
            if grace:
                with suppress(psutil.TimeoutExpired):
                    self._rank.process.wait(grace * TICK)
            self._rank.process.kill()

    def _part(self) -> None:
        """Close every link only when the other side has read all: what it still sends would break it off."""
        end = time.monotonic() + 2 * TICK
        for peer in self.peers.values():
            with suppress(EOFError, OSError):
                socket.socket(fileno=os.dup(peer.link.fileno())).shutdown(socket.SHUT_WR)
                while peer.link.poll(max(end - time.monotonic(), 0)):
                    peer.link.recv()

    def _welcome(self, listener: Listener) -> None:
        came = 0
        while came < self.post.ranks - 1:
            came += self._accept(listener)
        listener.close()

    def _accept(self, listener: Listener) -> bool:
        try:
            link = listener.accept()
            rank, name = link.recv()
            link.send(self.name)
        except (AuthenticationError, EOFError, OSError):  # not one of ours
            return False
        self._met.put(_Peer(rank, link, name))
        return True

    def _join(self, key: bytes) -> None:
        while True:
            try:
                link = Client((self.post.address, self.post.port), authkey=key)
                link.send((self.post.rank, self.name))
                self._met.put(_Peer(0, link, link.recv()))
            except (AuthenticationError, EOFError, OSError):
                time.sleep(TICK)
            else:
                return


class Guarded:
    """The rank's own end: starts its guard, tells it how the rank ends."""

    def __init__(self, post: Post) -> None:
        here = [sys.executable, "-P", __file__]  # -P: modules beside this file are no modules of Python's
        self._guard = subprocess.Popen(here, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._ending = False
        self._write(json.dumps(asdict(post)))
        assert self._guard.stdout is not None
        self.port = int(self._guard.stdout.readline() or 0)
        """Where it listens, on rank 0."""
        threading.Thread(target=self._mind, daemon=True).start()

    def goodbye(self) -> None:
        """The rank has done its work."""
        self._ending = True
        self._write("bye")
        self._guard.wait()

    def error(self, what: str) -> None:
        """The rank ends by an error that it can name."""
        self._ending = True
        self._write(f"error {_one_line(what)}")

    def failed(self, what: str) -> None:
        """The rank ends by an error that may come from the loss of another: then this process is killed in here."""
        self._ending = True
        self._write(f"failed {_one_line(what)}")
        assert self._guard.stdout is not None
        self._guard.stdout.readline()

    def _write(self, line: str) -> None:
        with suppress(OSError):
            assert self._guard.stdin is not None
            self._guard.stdin.write(f"{line}\n".encode())
            self._guard.stdin.flush()

    def _mind(self) -> None:
        """A rank without its guard could wait for ever."""
        self._guard.wait()
        if not self._ending:
            _say(f"lost: the guard of process {os.getpid()}; {GO_ON}")
            os._exit(1)


def new_key() -> str:
    """A secret that the guards of one run share."""
    return secrets.token_hex(16)


def _look_at(process: int) -> _Rank:
    rank = psutil.Process(process)
    launcher = rank.parent()
    if launcher is None:
        return _Rank(rank, rank.ppid(), None)
    # DeepSpeed's launcher outlives the command, or the ssh, that started it; nobody would see this run any more.
    outlives = DEEPSPEED_LAUNCHER in launcher.cmdline()
    return _Rank(rank, launcher.pid, launcher.ppid() if outlives else None)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def _first_line(source: int) -> str:
    """One line and no byte more: what follows is read by `select`."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(source, 1)
        if not byte:
            break
        line += byte
    return line.decode()


def main() -> None:
    """Guard the rank that the first line of standard input describes."""
    for polite in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.SIG_IGN)  # a guard ends with its rank
    guard = Guard(Post(**json.loads(_first_line(0))), 0)
    os.write(1, f"{guard.meet()}\n".encode())
    guard.watch()


if __name__ == "__main__":
    main()
