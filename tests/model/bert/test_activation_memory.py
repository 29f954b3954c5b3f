"""Memory that the forward pass keeps for the backward pass, which limits the micro-batches of the GPU presets.

The tensors are those of the paper's model in half precision at 128 tokens, on torch's fake tensors, which have no
values. The attention is the CPU's flash kernel, which keeps as much as a GPU's: its output and a number per query.
"""

import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from model.bert.build import build_task
from model.bert.device_batch import DeviceBatch
from model.bert.fused_attention import FusedSelfAttention, fuse_projections
from model.bert.masking import draw
from model.config import load_config
from pipeline.shards.index import read_index
from tests.conftest import ROOT

BASES = 380
"""The usual length of the challenge's promoters: three frames of 128 tokens."""
MEGABYTES = {"finetune": 16.0, "pretrain": 5.7}
"""Activations per promoter in 16 bits, in 10^6 bytes. Fine-tuning reads three frames, pretraining one."""
H200_BYTES = 141e9


def count_saved_bytes(task, stage, rows):
    """Count the bytes of the tensors that a forward pass keeps, without the parameters."""
    kept = {}
    own = {parameter.untyped_storage()._cdata for parameter in task.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # a reference, so that no other storage takes its place
        return tensor

    lengths = torch.full((rows,), BASES)
    drawn = draw(rows, BASES // 3 + 2, 3, torch.Generator().manual_seed(0))
    draws = drawn.slice_rows(0, rows) if stage == "pretrain" else None
    batch = DeviceBatch(
        torch.zeros((rows, 378), dtype=torch.uint8), lengths, torch.zeros(rows), torch.ones(rows), draws, is_full=True
    )
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        task(batch)
    return sum(storage.nbytes() for storage in kept.values())


class GpuDropout(torch.nn.Dropout):
    """Dropout as on a GPU, whose mask takes one byte per value; a CPU's has the type of the values."""

    def forward(self, values):
        return torch.native_dropout(values, self.p, self.training)[0]


def measure(made, stage):
    config = load_config(ROOT / "config.yaml")
    task = build_task(config, read_index(made.shards), stage).half().train()
    fuse_projections(task.model)
    for layer in task.model.bert.encoder.layer:
        layer.attention.self.dropout.p = 0.0  # the CPU's flash kernel has no dropout; a GPU's keeps only a seed
    for parent in list(task.modules()):
        for name, child in parent.named_children():
            if type(child) is torch.nn.Dropout and parent.__class__ is not FusedSelfAttention:
                setattr(parent, name, GpuDropout(child.p))
    with FakeTensorMode(allow_non_fake_inputs=True):
        return (count_saved_bytes(task, stage, 24) - count_saved_bytes(task, stage, 8)) / 16


@pytest.mark.parametrize("stage", ["finetune", "pretrain"])
def test_activations_of_a_promoter(made, stage):
    assert measure(made, stage) / 1e6 == pytest.approx(MEGABYTES[stage], abs=0.1)


@pytest.mark.parametrize("file", ["ds_h200.json", "ds_h200_bf16.json"])
def test_micro_batch_of_the_gpu_presets_takes_half_of_an_h200(file):
    micro_batch = json.loads((ROOT / "configs" / file).read_text())["train_micro_batch_size_per_gpu"]
    assert micro_batch * MEGABYTES["finetune"] * 1e6 < 0.5 * H200_BYTES
