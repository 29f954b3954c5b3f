"""Which of a host's network interfaces the ranks talk over."""

import ipaddress
import socket
from collections.abc import MutableMapping

import psutil

from pipeline.errors import UserError


def choose_interface(environment: MutableMapping[str, str]) -> None:
    """Tell gloo the interface on the way to the first host where its own choice would be wrong.

    gloo listens where the host's own name points to. On many systems that is 127.0.1.1, which no other host can reach.
    NCCL looks at the interfaces and not at the name; it is left alone. Nothing is done where the user named an
    interface, or where all ranks are on this host. Raises UserError where the first host's address is no use.
    """
    ranks, here = (int(environment.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_SIZE"))
    here = int(environment.get("LOCAL_WORLD_SIZE", here))
    if ranks <= here or "GLOO_SOCKET_IFNAME" in environment or is_reachable(own_address()):
        return
    master = environment["MASTER_ADDR"]
    address = address_towards(master)
    if not is_reachable(address):
        raise UserError(
            f"{socket.gethostname()} takes the first host, {master}, for itself ({address}): other hosts cannot reach "
            "it there; give its address: deepspeed --master_addr ..., or mend that name in /etc/hosts"
        )
    environment["GLOO_SOCKET_IFNAME"] = interface_of(address)


def own_address() -> str:
    """Where this host's own name points to; empty where it points nowhere."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def is_reachable(address: str) -> bool:
    """Whether other hosts may find this one at an address."""
    return bool(address) and not ipaddress.ip_address(address).is_loopback


def address_towards(host: str) -> str:
    """This host's address on the way to another. Raises UserError where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # sends nothing
        except OSError as error:
            raise UserError(
                f"{socket.gethostname()}: no way to the first host, {host}: {error.strerror or error}; "
                "check its name and the network (promoter-bert doctor)"
            ) from None
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """The interface that has an address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return str(name)
    raise UserError(f"{socket.gethostname()}: no network interface has the address {address}")
