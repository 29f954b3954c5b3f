"""Heartbeats between the watchdogs of a run: one per second, all by way of rank 0's watchdog, with a common key."""

import os
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
CONNECTING = 40
"""Ticks within which all watchdogs must have connected, once their ranks have met."""


@dataclass(eq=False)
class LostError(Exception):
    """The run cannot continue. grace: ticks in which the rank may end by itself; reported: its message was printed."""

    what: str
    grace: int = 0
    reported: bool = False


@dataclass
class _Peer:
    """Another watchdog. silent: ticks since its last heartbeat."""

    name: str
    link: Connection
    silent: int = 0


class Heartbeats:
    """Links to other watchdogs: on rank 0 to all others, elsewhere to rank 0's."""

    def __init__(self, rank: int, ranks: int, name: str) -> None:
        self._rank, self._ranks, self._name = rank, ranks, name
        self._peers: dict[int, _Peer] = {}
        self._missing: set[int] = set()
        """Ranks whose watchdogs have not connected yet."""
        self._waiting = 0
        """Ticks spent waiting for them."""
        self._address = ""
        """Address of rank 0's watchdog; empty before the rendezvous."""

    @property
    def started(self) -> bool:
        """Return whether the ranks have met, so that the watchdogs are connected or connecting."""
        return bool(self._address)

    def listen(self, address: str, key: str) -> int:
        """On rank 0: accept the others from now on. Returns the port."""
        listener = Listener((address, 0), backlog=self._ranks, authkey=bytes.fromhex(key))
        port = int(listener.address[1])
        self._address, self._missing = f"{address}:{port}", set(range(1, self._ranks))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return port

    def join(self, address: str, port: int, key: str) -> None:
        """On the other ranks: connect to rank 0's watchdog, as soon as it answers."""
        self._address, self._missing = f"{address}:{port}", {0}
        threading.Thread(target=self._connect, args=(address, port, bytes.fromhex(key)), daemon=True).start()

    def exchange(self) -> None:
        """Once per tick: receive from all, send a heartbeat. Raises LostError for a loss."""
        self._waiting += bool(self._missing)
        if self._waiting >= CONNECTING and (missing := sorted(self._missing)):
            raise LostError(
                f"the watchdogs of rank {', '.join(map(str, missing))} and {self._rank} could not connect at "
                f"{self._address} (a firewall?)"
            )
        for rank, peer in list(self._peers.items()):
            self._receive(rank, peer)
        self.send("here")

    def send(self, kind: str, what: str = "", grace: int = 0) -> None:
        """Send the others "here", "bye" when this rank is done, or "lost" with the fields of a LostError."""
        for peer in list(self._peers.values()):
            with suppress(OSError):
                peer.link.send((kind, what, grace))

    def close(self) -> None:
        """Close each link only after the other side has read everything: data still in flight would reset it."""
        end = time.monotonic() + 2 * TICK
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
                kind, what, grace = peer.link.recv()
                if kind == "bye":
                    del self._peers[rank]
                    return
                if kind == "lost":
                    raise LostError(what, grace)
        except (EOFError, OSError):
            raise LostError(f"{peer.name}: connection closed") from None
        if peer.silent >= SILENT:
            raise LostError(
                f"{peer.name}: no heartbeat for {SILENT * TICK:.0f} s; its host or the link is down or frozen"
            )

    def _accept(self, listener: Listener) -> None:
        with listener:
            while self._missing:
                with suppress(AuthenticationError, EOFError, OSError):  # of a stranger
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
                time.sleep(TICK)

    def _add(self, rank: int, name: str, link: Connection) -> None:
        self._peers[rank] = _Peer(name, link)
        self._missing.discard(rank)
