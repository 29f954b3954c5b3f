"""Choice of the network interface for communication between ranks."""

import ipaddress
import socket
from collections.abc import MutableMapping

import psutil

from pipeline.errors import UserError


def choose_interface(environment: MutableMapping[str, str]) -> None:
    """Set gloo's interface to the one on the route to the first host if its default would be a loopback address.

    By default gloo listens at the address of the host's own name. On many systems this is 127.0.1.1, which other hosts
    cannot reach. NCCL selects interfaces itself. The environment is not changed if the user has set an interface, or if
    all ranks are on this host. Raises UserError if the first host's address is a loopback address.
    """
    ranks_here = int(environment.get("LOCAL_WORLD_SIZE", environment.get("LOCAL_SIZE", "1")))
    one_host = int(environment.get("WORLD_SIZE", "1")) <= ranks_here
    if one_host or "GLOO_SOCKET_IFNAME" in environment or is_reachable(resolve_own_address()):
        return
    master = environment["MASTER_ADDR"]
    address = find_route_address(master)
    if not is_reachable(address):
        raise UserError(
            f"{socket.gethostname()}: the first host, {master}, resolves to a loopback address here ({address}), and "
            "other hosts cannot reach it there; fix: deepspeed --master_addr ADDRESS, or correct the name in /etc/hosts"
        )
    environment["GLOO_SOCKET_IFNAME"] = find_interface(address)


def resolve_own_address() -> str:
    """Resolve this host's own name to an address. Returns an empty text if it does not resolve."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def is_reachable(address: str) -> bool:
    """Return whether an address is set and not a loopback address, so that other hosts can reach it."""
    return bool(address) and not ipaddress.ip_address(address).is_loopback


def find_route_address(host: str) -> str:
    """Find this host's address on the route to another host. Raises UserError if there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # UDP: selects the route, but sends nothing
        except OSError as error:
            raise UserError(
                f"{socket.gethostname()}: no route to the first host, {host} ({error.strerror or error}); "
                "fix: check its name and the network with promoter-bert doctor"
            ) from None
        return str(probe.getsockname()[0])


def find_interface(address: str) -> str:
    """Find the network interface that has an address. Raises UserError if there is none."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return str(name)
    raise UserError(
        f"{socket.gethostname()}: no network interface has the address {address}; fix: set GLOO_SOCKET_IFNAME to the "
        "interface on the route to the first host"
    )
