"""Start of the process group, up to the call that connects the ranks."""

import deepspeed
import deepspeed.ops
import pytest
import torch

from model.distributed import process_group


class ConnectedError(Exception):
    """End of the start-up in this test."""


@pytest.fixture
def calls(monkeypatch):
    """The calls that choose a GPU and connect the ranks, in their order; the latter ends the start-up."""
    calls = []

    def connect(dist_backend, **_):
        calls.append(("connect", dist_backend))
        raise ConnectedError

    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr(process_group, "choose_interface", lambda _: None)
    monkeypatch.setattr(process_group, "join_rendezvous", lambda _: None)
    monkeypatch.setattr(deepspeed, "init_distributed", connect)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", device)))
    monkeypatch.setattr(deepspeed.ops, "_probe_compatible_ops", lambda: calls.append(("probe", None)), raising=False)
    monkeypatch.delitem(vars(deepspeed.ops), "__compatible_ops__", raising=False)
    return calls


def test_gpu_is_set_before_the_ranks_connect(calls, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConnectedError):
        process_group.init_group()
    assert calls == [("set_device", 3), ("connect", "nccl")]


def test_cpu_start_probes_no_compiler(calls, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConnectedError):
        process_group.init_group()
    assert calls == [("connect", "gloo")]
    assert deepspeed.ops.__compatible_ops__ == {"deepspeed_shm_comm": False}
