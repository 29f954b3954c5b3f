import pytest
import torch

from model.bert.flops import nominal_rate
from model.bert.rng import deterministic_kernels
from model.config import load_config


@pytest.mark.parametrize("enabled", [False, True])
def test_deterministic_kernels_are_used_within_the_block_only(monkeypatch, enabled):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with deterministic_kernels(enabled):
        assert torch.are_deterministic_algorithms_enabled() == enabled
    assert not torch.are_deterministic_algorithms_enabled()


def test_dumps_of_older_runs_do_not_have_the_setting():
    assert "deterministic" not in load_config().run.model_dump()
    assert load_config(overrides=["run.deterministic=true"]).run.model_dump()["deterministic"] is True


@pytest.mark.parametrize(
    ("name", "precision", "tf32", "expected"),
    [
        ("NVIDIA H200", "fp16", False, 989e12), ("NVIDIA H200", "fp32", True, 494e12),
        ("NVIDIA H200", "fp32", False, None),
        ("NVIDIA A100-SXM4-80GB", "bf16", False, 312e12), ("NVIDIA H100 PCIe", "fp16", False, 756e12),
        ("Tesla V100", "fp32", True, None), ("another", "fp16", False, None),
    ],
)  # fmt: skip
def test_nominal_rate_depends_on_chip_and_precision(monkeypatch, name, precision, tf32, expected):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert nominal_rate(torch.device("cuda"), precision, tf32) == expected
    assert nominal_rate(torch.device("cpu"), precision, tf32) is None
