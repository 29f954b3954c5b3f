"""Rendezvous of all ranks, and then of their watchdogs, within a time limit."""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from model.distributed.network import find_route_address
from model.watchdog.client import RESUME_HINT, Watchdog
from model.watchdog.launcher import find_rank_hosts, kill_ranks

TIMEOUT = timedelta(minutes=int(os.environ.get("DEEPSPEED_TIMEOUT", "10")))
"""Timeout of collectives: longer than the work of rank 0 while the others wait (checkpoints, exports). The watchdogs
detect dead or frozen ranks much earlier."""
JOIN_TIMEOUT_S = TIMEOUT.total_seconds() if "DEEPSPEED_TIMEOUT" in os.environ else 45.0
"""Time for all ranks to arrive after the first one, as imports take longer on some hosts."""


def join_rendezvous(watchdog: Watchdog | None) -> c10d.Store:
    """Wait until every rank has arrived, then connect the watchdogs. Returns the store that keeps rank 0's port open.

    Raises SystemExit with the names of missing ranks if some do not arrive in time, DistNetworkError if the port is in
    use.
    """
    rank, ranks = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE"))
    end = time.monotonic() + JOIN_TIMEOUT_S
    if watchdog is not None:
        watchdog.report_imports_done()
    try:
        attempt = _Attempt(_open_store(rank, ranks, end), rank, ranks)
        if not _wait_until(attempt.is_complete, end):
            raise _make_missing_error(rank, attempt.missing)
        store = attempt.store
        if watchdog is not None and rank == 0:
            address, key = find_route_address(os.environ["MASTER_ADDR"]), secrets.token_hex(16)
            store.set("watchdog", json.dumps([address, watchdog.listen(address, key), key]))
        elif watchdog is not None:
            watchdog.join(*json.loads(store.get("watchdog")))
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if "EADDRINUSE" in str(error):
            raise
        raise SystemExit(
            f"lost: rank 0: connection to rank {rank} on {socket.gethostname()} failed; {RESUME_HINT}"
        ) from None
    return _leave_agent_store(store, rank) if _is_served_by_torchrun() else store


def _is_served_by_torchrun() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _leave_agent_store(store: c10d.Store, rank: int) -> c10d.Store:
    """Let rank 0 serve a new store, to which the environment then leads. torchrun's holds addresses of dead ranks."""
    kept = store
    if rank == 0:
        kept = dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"], 0, is_master=True, wait_for_workers=False, multi_tenant=True
        )
        store.set("port", str(kept.port))
    os.environ.update(MASTER_PORT=store.get("port").decode(), TORCHELASTIC_USE_AGENT_STORE=str(False))
    return kept


class _Attempt:
    """Arrival of the ranks in one start of a training.

    torchrun keeps one store for all starts, and its restart counts may differ between hosts. So rank 0 chooses a random
    key per start. It tells the key to every rank that asks for it.
    """

    def __init__(self, store: c10d.Store, rank: int, ranks: int) -> None:
        self._shared, self._rank, self._ranks = store, rank, ranks
        self._own_key = secrets.token_hex(8)
        self.store = c10d.PrefixStore(f"promoter-bert/{self._own_key}", store)
        """Store of this start, once it is complete."""
        self.missing = list(range(ranks)) if rank == 0 else [0]
        """Ranks that have not arrived."""
        store.set(f"promoter-bert/rank-{rank}", self._own_key)

    def is_complete(self) -> bool:
        """Return whether all ranks have arrived. Call it until they have."""
        if self._rank == 0:
            self._answer()
        elif self.missing == [0] and self._shared.check([f"promoter-bert/key-{self._own_key}"]):
            key = self._shared.get(f"promoter-bert/key-{self._own_key}").decode()
            self.store = c10d.PrefixStore(f"promoter-bert/{key}", self._shared)
            self.store.set(str(self._rank), "")
            self.missing = list(range(self._ranks))
        elif self.missing == [0]:
            return False
        self.missing = [rank for rank in self.missing if not self.store.check([str(rank)])]
        return not self.missing

    def _answer(self) -> None:
        """On rank 0: tell the key to the other ranks. The name of a rank may still lead to a dead process."""
        self.store.set("0", "")
        for rank in self.missing:
            if rank and self._shared.check([f"promoter-bert/rank-{rank}"]):
                other_key = self._shared.get(f"promoter-bert/rank-{rank}").decode()
                self._shared.set(f"promoter-bert/key-{other_key}", self._own_key)


def _open_store(rank: int, ranks: int, end: float) -> c10d.Store:
    """Open the common store of the ranks, which rank 0 or torchrun serves.

    The store's own waits are not used, as they print stack traces, name no rank and block signals.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    by_torchrun = _is_served_by_torchrun()
    is_server = rank == 0 and not by_torchrun

    def answers() -> bool:
        with suppress(OSError), socket.create_connection((address, port), timeout=5):
            return True
        return False

    if not is_server and not _wait_until(answers, end):
        raise _make_missing_error(rank, [0])
    limit = timedelta(seconds=JOIN_TIMEOUT_S)
    store: c10d.Store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, ranks, is_server, limit, wait_for_workers=False, multi_tenant=not by_torchrun
    )
    return store


def _make_missing_error(rank: int, missing: list[int]) -> SystemExit:
    """Make the error that names missing ranks, and kill those on this host: frozen, they would block the launcher."""
    kill_ranks(missing)
    hosts = find_rank_hosts(os.getpid())
    names = ", ".join(f"rank {n} on {hosts[n]}" if n < len(hosts) else f"rank {n}" for n in missing)
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return SystemExit(
        f"lost: {names}: did not arrive within {JOIN_TIMEOUT_S:.0f} s; rank {rank} on {socket.gethostname()} waited "
        f"at {address}; fix: read the messages above, or run promoter-bert doctor; if hosts start slowly, set "
        "DEEPSPEED_TIMEOUT (minutes) in .deepspeed_env"
    )


def _wait_until(condition: Callable[[], bool], end: float) -> bool:
    """Wait for a condition until `end`, seconds on the monotonic clock. Returns whether it became true."""
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
