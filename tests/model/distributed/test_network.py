import socket

import pytest

from model.distributed.network import choose_interface, find_interface, find_route_address
from pipeline.errors import UserError


def test_interface_is_on_the_route_to_the_first_host(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")  # resolves to a loopback address
    outside = find_route_address("192.0.2.1")
    environment = {"WORLD_SIZE": "2", "LOCAL_SIZE": "1", "MASTER_ADDR": "192.0.2.1"}
    choose_interface(environment)
    assert environment["GLOO_SOCKET_IFNAME"] == find_interface(outside) != "lo"
    for untouched in (
        {**environment, "GLOO_SOCKET_IFNAME": "mine"},
        {"WORLD_SIZE": "2", "LOCAL_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
    ):
        before = dict(untouched)
        choose_interface(untouched)
        assert untouched == before
    with pytest.raises(UserError, match="other hosts cannot reach it there"):
        choose_interface({"WORLD_SIZE": "2", "LOCAL_SIZE": "1", "MASTER_ADDR": "127.0.1.1"})
