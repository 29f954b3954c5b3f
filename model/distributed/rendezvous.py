"""Where all ranks find each other, each within a time limit, and then their guards."""

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

from model.distributed.network import address_towards
from model.watchdog.client import GO_ON, Guarded
from model.watchdog.launcher import end_ranks, hosts_of_ranks

TIMEOUT = timedelta(minutes=int(os.environ.get("DEEPSPEED_TIMEOUT", "10")))
"""For ranks that live but do not come: longer than anything that rank 0 does while the others wait (checkpoints,
exports). A rank that is dead or frozen is noticed by the guards, long before."""
JOIN = TIMEOUT.total_seconds() if "DEEPSPEED_TIMEOUT" in os.environ else 45.0
"""Seconds in which all ranks come, once the first is there; imports may take longer on one host than on another."""


def meet(guard: Guarded | None) -> c10d.Store:
    """Wait until every rank is there; then the guards meet, too. Returns what keeps rank 0's port open.

    Ends this process, with the names of those missing, where one does not come. Raises DistNetworkError where the port
    is taken.
    """
    rank, ranks, restart = (int(os.environ.get(n, "0")) for n in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"))
    end = time.monotonic() + JOIN
    if guard is not None:
        guard.waits()
    try:
        store = c10d.PrefixStore(f"promoter-bert/{restart}", _store(rank, ranks, end))
        store.set(str(rank), "")
        if not _until(lambda: store.check([str(n) for n in range(ranks)]), end):
            raise _not_all_came(rank, [n for n in range(ranks) if not store.check([str(n)])])
        if guard is not None:
            _introduce(guard, rank, store)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if "EADDRINUSE" in str(error):
            raise
        raise SystemExit(f"lost: rank 0, as seen by rank {rank} on {socket.gethostname()}; {GO_ON}") from None
    return store


def _store(rank: int, ranks: int, end: float) -> c10d.Store:
    """The ranks' common store, which rank 0 or torchrun serves.

    The store's own waits print stack traces, tell no names and let no signal through; so it is not asked to wait.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    serves = rank == 0 and not by_torchrun
    if not serves and not _until(lambda: _answers(address, port), end):
        raise _not_all_came(rank, [0])
    limit = timedelta(seconds=JOIN)
    store: c10d.Store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, ranks, serves, limit, wait_for_workers=False, multi_tenant=not by_torchrun
    )
    return store


def _introduce(guard: Guarded, rank: int, store: c10d.Store) -> None:
    """Tell this rank's guard where it finds rank 0's."""
    if rank == 0:
        address, key = address_towards(os.environ["MASTER_ADDR"]), secrets.token_hex(16)
        store.set("guard", json.dumps([address, guard.listen(address, key), key]))
    else:
        guard.join(*json.loads(store.get("guard")))


def _not_all_came(rank: int, missing: list[int]) -> SystemExit:
    """Why this process ends. Those missing on this host end, too: frozen, they would keep the launcher waiting."""
    end_ranks(missing)
    hosts = hosts_of_ranks(os.getpid())
    names = ", ".join(f"rank {n} on {hosts[n]}" if n < len(hosts) else f"rank {n}" for n in missing)
    return SystemExit(
        f"lost: {names}: not there after {JOIN:.0f} s, for which rank {rank} on {socket.gethostname()} has waited at "
        f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}; the cause stands above, or promoter-bert doctor "
        "finds it (where starting takes long: DEEPSPEED_TIMEOUT, in minutes, in .deepspeed_env)"
    )


def _until(met: Callable[[], bool], end: float) -> bool:
    """Whether it is so before `end`, by the monotonic clock."""
    while not met():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _answers(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), timeout=5):
        return True
    return False
