"""Heartbeats between the watchdogs of a run: one per second, all through rank 0's watchdog, with a common key."""

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

TICK_S = 1.0
"""Seconds between two heartbeats."""
SILENT_TICKS = 20
"""Ticks without a heartbeat until a watchdog counts as lost. Time in which this process itself was stopped, for example
by Ctrl-Z, does not count."""
CONNECT_TICKS = 40
"""Ticks after the rendezvous of the ranks in which all watchdogs must connect."""


@dataclass(eq=False)
class LostError(Exception):
    """Loss of a process or link, after which the run cannot continue.

    grace: ticks in which the rank may end by itself; reported: whether the problem was printed already.
    """

    problem: str
    grace: int = 0
    reported: bool = False


@dataclass
class _Peer:
    """Another watchdog. silent: number of ticks since its last heartbeat."""

    name: str
    link: Connection
    silent: int = 0


class Heartbeats:
    """Links to other watchdogs: from rank 0 to all others, from the others to rank 0."""

    def __init__(self, rank: int, ranks: int, name: str) -> None:
        self._rank, self._ranks, self._name = rank, ranks, name
        self._peers: dict[int, _Peer] = {}
        self._missing: set[int] = set()
        """Ranks whose watchdogs have not connected yet."""
        self._waiting = 0
        """Ticks since the rendezvous in which some were missing."""
        self._address = ""
        """Address of rank 0's watchdog; empty before the rendezvous."""

    @property
    def started(self) -> bool:
        """Return whether the rendezvous of the ranks is over, so that the watchdogs are connected or connecting."""
        return bool(self._address)

    def listen(self, address: str, key: str) -> int:
        """Accept connections of the other watchdogs, on rank 0. Returns the port."""
        listener = Listener((address, 0), backlog=self._ranks, authkey=bytes.fromhex(key))
        port = int(listener.address[1])
        self._address, self._missing = f"{address}:{port}", set(range(1, self._ranks))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return port

    def join(self, address: str, port: int, key: str) -> None:
        """Connect to rank 0's watchdog as soon as it answers, on the other ranks."""
        self._address, self._missing = f"{address}:{port}", {0}
        threading.Thread(target=self._connect, args=(address, port, bytes.fromhex(key)), daemon=True).start()

    def exchange(self) -> None:
        """Receive from all links and send a heartbeat; called once per tick. Raises LostError for a loss."""
        self._waiting += bool(self._missing)
        if self._waiting >= CONNECT_TICKS and (missing := sorted(self._missing)):
            raise LostError(
                f"the watchdogs of rank {', '.join(map(str, missing))} and rank {self._rank} cannot connect at "
                f"{self._address}, perhaps because of a firewall"
            )
        for rank, peer in list(self._peers.items()):
            self._receive(rank, peer)
        self.send("heartbeat")

    def send(self, kind: str, problem: str = "", grace: int = 0) -> None:
        """Send all links a message: "heartbeat", "bye" if this rank is done, or "lost" with a problem and its grace."""
        for peer in list(self._peers.values()):
            with suppress(OSError):
                peer.link.send((kind, problem, grace))

    def close(self) -> None:
        """Close each link after the other side has read everything, as unread data would reset the connection."""
        end = time.monotonic() + 2 * TICK_S
        for peer in list(self._peers.values()):
            with suppress(EOFError, OSError):
                socket.socket(fileno=os.dup(peer.link.fileno())).shutdown(socket.SHUT_WR)
                while peer.link.poll(max(end - time.monotonic(), 0)):
                    peer.link.recv()

    def _receive(self, rank: int, peer: _Peer) -> None:
        peer.silent += 1
        try:
            while peer.link.poll():
                peer.silent = 0
                kind, problem, grace = peer.link.recv()
                if kind == "bye":
                    del self._peers[rank]
                    return
                if kind == "lost":
                    raise LostError(problem, grace)
        except (EOFError, OSError):
            raise LostError(f"{peer.name}: connection closed") from None
        if peer.silent >= SILENT_TICKS:
            raise LostError(
                f"{peer.name}: no heartbeat for {SILENT_TICKS * TICK_S:.0f} s; its host or the link is down or frozen"
            )

    def _accept(self, listener: Listener) -> None:
        with listener:
            while self._missing:
                with suppress(AuthenticationError, EOFError, OSError):  # connections without the key are ignored
                    link = listener.accept()
                    rank, name = link.recv()
                    link.send(self._name)
                    self._add(rank, name, link)

    def _connect(self, address: str, port: int, key: bytes) -> None:
        while self._missing:
            try:
                link = Client((address, port), authkey=key)
                link.send((self._rank, self._name))
                self._add(0, link.recv(), link)
            except (AuthenticationError, EOFError, OSError):
                time.sleep(TICK_S)

    def _add(self, rank: int, name: str, link: Connection) -> None:
        self._peers[rank] = _Peer(name, link)
        self._missing.discard(rank)
