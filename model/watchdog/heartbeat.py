"""Heartbeats between the watchdogs of a run: one per second, all by way of rank 0's watchdog, with a common key."""

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
"""Seconds between two heartbeats."""
SILENT = 20
"""Ticks without a heartbeat until a watchdog counts as lost. Time during which this process was itself stopped, as by
Ctrl-Z, does not count."""
MEETING = 40
"""Ticks within which all watchdogs must have connected, once their ranks have met."""


class LostError(Exception):
    """The run cannot continue. reported: the user has been told; grace: ticks in which the rank may end by itself."""

    def __init__(self, what: str, grace: int = 0, reported: bool = False) -> None:
        super().__init__(what)
        self.what, self.grace, self.reported = what, grace, reported


@dataclass
class _Peer:
    """Another watchdog. silent: ticks since its last heartbeat."""

    rank: int
    link: Connection
    name: str
    silent: int = 0


class Heartbeats:
    """Links to other watchdogs: on rank 0 to all others, elsewhere to rank 0's."""

    def __init__(self, rank: int, ranks: int, name: str) -> None:
        self._rank, self._ranks, self._name = rank, ranks, name
        self._peers: dict[int, _Peer] = {}
        self._new: queue.SimpleQueue[_Peer] = queue.SimpleQueue()
        self._waiting = 0
        """Ticks spent waiting for the others; -1 when all have connected."""
        self._place = ""

    def listen(self, address: str, key: str) -> int:
        """On rank 0: accept the others from now on. Returns the port."""
        listener = Listener((address, 0), backlog=self._ranks, authkey=bytes.fromhex(key))
        port = int(listener.address[1])
        self._place = f"{address}:{port}"
        threading.Thread(target=self._accept_all, args=(listener,), daemon=True).start()
        return port

    def join(self, address: str, port: int, key: str) -> None:
        """On the other ranks: connect to rank 0's watchdog, as soon as it answers."""
        self._place = f"{address}:{port}"
        threading.Thread(target=self._connect, args=(address, port, bytes.fromhex(key)), daemon=True).start()

    def exchange(self) -> None:
        """Once per tick: receive from all, send a heartbeat. Raises LostError for a loss."""
        self._add_new_peers()
        for peer in list(self._peers.values()):
            self._receive(peer)
        self._send("here", "", 0)

    def send_goodbye(self) -> None:
        """Tell the others that this rank is done."""
        self._send("bye", "", 0)

    def send_lost(self, lost: LostError) -> None:
        """Tell the others that the run cannot continue."""
        self._send("lost", lost.what, lost.grace)

    def close(self) -> None:
        """Close each link only after the other side has read everything: data still in flight would reset it."""
        end = time.monotonic() + 2 * TICK
        for peer in self._peers.values():
            with suppress(EOFError, OSError):
                socket.socket(fileno=os.dup(peer.link.fileno())).shutdown(socket.SHUT_WR)
                while peer.link.poll(max(end - time.monotonic(), 0)):
                    peer.link.recv()

    def _add_new_peers(self) -> None:
        """Add watchdogs that have connected; after a while the missing ones are lost."""
        with suppress(queue.Empty):
            while True:
                peer = self._new.get_nowait()
                self._peers[peer.rank] = peer
                self._waiting = -1 if self._all_connected() else self._waiting
        if self._waiting < 0 or self._ranks == 1:
            return
        self._waiting += 1
        if self._waiting >= MEETING:
            missing = [r for r in range(1, self._ranks) if r not in self._peers] if not self._rank else [0]
            names = ", ".join(map(str, missing))
            raise LostError(
                f"the watchdogs of rank {names} and {self._rank} could not connect at {self._place} (a firewall?)"
            )

    def _all_connected(self) -> bool:
        return bool(self._rank) or len(self._peers) == self._ranks - 1

    def _receive(self, peer: _Peer) -> None:
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
            raise LostError(f"{peer.name}: connection closed") from None
        if peer.silent >= SILENT:
            raise LostError(
                f"{peer.name}: no heartbeat for {SILENT * TICK:.0f} s; its host or the link is down or frozen"
            )

    def _send(self, kind: str, what: str, grace: int) -> None:
        for peer in self._peers.values():
            with suppress(OSError):
                peer.link.send((kind, what, grace))

    def _accept_all(self, listener: Listener) -> None:
        accepted = 0
        while accepted < self._ranks - 1:
            accepted += self._accept(listener)
        listener.close()

    def _accept(self, listener: Listener) -> bool:
        try:
            link = listener.accept()
            rank, name = link.recv()
            link.send(self._name)
        except (AuthenticationError, EOFError, OSError):  # a stranger
            return False
        self._new.put(_Peer(rank, link, name))
        return True

    def _connect(self, address: str, port: int, key: bytes) -> None:
        while True:
            try:
                link = Client((address, port), authkey=key)
                link.send((self._rank, self._name))
                self._new.put(_Peer(0, link, link.recv()))
            except (AuthenticationError, EOFError, OSError):
                time.sleep(TICK)
            else:
                return
