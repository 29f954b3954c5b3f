"""Network interface for the communication between ranks."""

import ipaddress
import socket
from collections.abc import MutableMapping

import psutil

from pipeline.errors import UserError


def choose_interface(environment: MutableMapping[str, str]) -> None:
    """Set gloo's interface to the one on the route to the first host if its own choice would be wrong.

    gloo listens at the address of the host's own name. On many systems that is 127.0.1.1, which no other host reaches.
    NCCL goes by the interfaces instead and needs no help. Nothing is changed if the user has named an interface, or if
    all ranks are on this host. Raises UserError if the first host's address is a loopback address.
    """
    ranks_here = int(environment.get("LOCAL_WORLD_SIZE", environment.get("LOCAL_SIZE", "1")))
    one_host = int(environment.get("WORLD_SIZE", "1")) <= ranks_here
    if one_host or "GLOO_SOCKET_IFNAME" in environment or is_reachable(own_address()):
        return
    master = environment["MASTER_ADDR"]
    address = address_towards(master)
    if not is_reachable(address):
        raise UserError(
            f"{socket.gethostname()}: the first host, {master}, is {address} here: other hosts cannot reach it there; "
            "fix: deepspeed --master_addr ADDRESS, or correct that name in /etc/hosts"
        )
    environment["GLOO_SOCKET_IFNAME"] = interface_of(address)


def own_address() -> str:
    """Resolve this host's own name; empty if it does not resolve."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def is_reachable(address: str) -> bool:
    """Return whether other hosts can reach this one at an address."""
    return bool(address) and not ipaddress.ip_address(address).is_loopback


def address_towards(host: str) -> str:
    """Return this host's address on the route to another. Raises UserError if there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # sends nothing
        except OSError as error:
            raise UserError(
                f"{socket.gethostname()}: no route to the first host, {host}: {error.strerror or error}; "
                "fix: check its name and the network (promoter-bert doctor)"
            ) from None
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """Return the interface that has an address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return str(name)
    raise UserError(f"{socket.gethostname()}: no network interface has the address {address}")
