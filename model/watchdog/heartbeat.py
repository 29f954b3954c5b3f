"""The words between the guards of a run: all by way of rank 0's guard, one a second, each known by a common key."""

import os
import queue
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

TICK = 1.0
"""Seconds between two words."""
SILENT = 20
"""Ticks without a word from a guard, until it is given up. Time in which this process was itself stopped, as by Ctrl-Z,
does not count."""
MEETING = 40
"""Ticks in which all guards must have met, once their ranks have."""


class LostError(Exception):
    """The run cannot go on. said: the user has been told; grace: ticks in which the rank may end by itself."""

    def __init__(self, what: str, grace: int = 0, said: bool = False) -> None:
        super().__init__(what)
        self.what, self.grace, self.said = what, grace, said


@dataclass
class _Peer:
    """Another guard. silent: ticks since its last word."""

    rank: int
    link: Connection
    name: str
    silent: int = 0


class Peers:
    """The guards that this one is linked with: on rank 0 all others, elsewhere rank 0's."""

    def __init__(self, rank: int, ranks: int, name: str) -> None:
        self._rank, self._ranks, self._name = rank, ranks, name
        self._peers: dict[int, _Peer] = {}
        self._met: queue.SimpleQueue[_Peer] = queue.SimpleQueue()
        self._waiting = 0
        self._place = ""

    def listen(self, address: str, key: str) -> int:
        """On rank 0: welcome the others from now on. Returns the port."""
        listener = Listener((address, 0), backlog=self._ranks, authkey=bytes.fromhex(key))
        port = int(listener.address[1])
        self._place = f"{address}:{port}"
        threading.Thread(target=self._welcome, args=(listener,), daemon=True).start()
        return port

    def join(self, address: str, port: int, key: str) -> None:
        """On the others: connect to rank 0's guard, as soon as it answers."""
        self._place = f"{address}:{port}"
        threading.Thread(target=self._connect, args=(address, port, bytes.fromhex(key)), daemon=True).start()

    def exchange(self) -> None:
        """Once a tick: hear all, say that this one is here. Raises LostError for what is lost."""
        self._greet()
        for peer in list(self._peers.values()):
            self._hear(peer)
        self._tell("here", "", 0)

    def tell_goodbye(self) -> None:
        """This rank has done its work."""
        self._tell("bye", "", 0)

    def tell_lost(self, lost: LostError) -> None:
        """The run cannot go on."""
        self._tell("lost", lost.what, lost.grace)

    def part(self) -> None:
        """Close every link only when the other side has read all: what it still sends would break it off."""
        end = time.monotonic() + 2 * TICK
        for peer in self._peers.values():
            with suppress(EOFError, OSError):
                socket.socket(fileno=os.dup(peer.link.fileno())).shutdown(socket.SHUT_WR)
                while peer.link.poll(max(end - time.monotonic(), 0)):
                    peer.link.recv()

    def _greet(self) -> None:
        """Take up guards that have come; after a while those that have not are lost."""
        with suppress(queue.Empty):
            while True:
                peer = self._met.get_nowait()
                self._peers[peer.rank] = peer
                self._waiting = -1 if self._all_met() else self._waiting
        if self._waiting < 0 or self._ranks == 1:
            return
        self._waiting += 1
        if self._waiting >= MEETING:
            missing = [r for r in range(1, self._ranks) if r not in self._peers] if not self._rank else [0]
            names = ", ".join(map(str, missing))
            raise LostError(
                f"the guards of rank {names} and {self._rank} could not meet at {self._place} (a firewall?)"
            )

    def _all_met(self) -> bool:
        return bool(self._rank) or len(self._peers) == self._ranks - 1

    def _hear(self, peer: _Peer) -> None:
        peer.silent += 1
        try:
            while peer.link.poll():
                peer.silent = 0
                kind, what, grace = peer.link.recv()
                if kind == "bye":
                    del self._peers[peer.rank]
                    return
                if kind == "lost":
                    raise LostError(what, grace)
        except (EOFError, OSError):
            raise LostError(f"{peer.name}: the connection broke off") from None
        if peer.silent >= SILENT:
            raise LostError(f"{peer.name}: no word for {SILENT * TICK:.0f} s; its host or the link is down or frozen")

    def _tell(self, kind: str, what: str, grace: int) -> None:
        for peer in self._peers.values():
            with suppress(OSError):
                peer.link.send((kind, what, grace))

    def _welcome(self, listener: Listener) -> None:
        came = 0
        while came < self._ranks - 1:
            came += self._accept(listener)
        listener.close()

    def _accept(self, listener: Listener) -> bool:
        try:
            link = listener.accept()
            rank, name = link.recv()
            link.send(self._name)
        except (AuthenticationError, EOFError, OSError):  # not one of ours
            return False
        self._met.put(_Peer(rank, link, name))
        return True

    def _connect(self, address: str, port: int, key: bytes) -> None:
        while True:
            try:
                link = Client((address, port), authkey=key)
                link.send((self._rank, self._name))
                self._met.put(_Peer(0, link, link.recv()))
            except (AuthenticationError, EOFError, OSError):
                time.sleep(TICK)
            else:
                return
