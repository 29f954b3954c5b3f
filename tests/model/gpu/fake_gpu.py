"""Run both objectives on an accelerator that computes nothing, and write what a GPU could not do well as JSON.

The accelerator is torch's private backend under a name of its own. Its tensors have shapes, dtypes and devices, but no
values (FakeTensorMode). So an operation that mixes devices or waits for a value fails here, as it would fail or wait on
a GPU. Run by test_fake_gpu.py in a process of its own, as a renamed backend holds for the whole process.
"""

import json
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from model.bert import length_cut
from model.bert.build import build_task
from model.bert.device_batch import pass_to_device
from model.bert.fused_attention import fuse_projections
from model.bert.objectives import Sums
from model.config import Config
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.stream.stream import RankSlice, ShardStream

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MODERN = {
    "architecture": "modernbert", "kmer_embedding": "composed", "layers": 2, "attention_window": 8,
}  # fmt: skip
SPANS = {"pretrain": {"objective": "spans"}, "finetune": {"tokens": "overlapping"}}
CASES = {
    "pretrain modernbert": ("pretrain", {"model": MODERN}),
    "finetune modernbert overlapping": ("finetune", {"model": MODERN, "finetune": {"tokens": "overlapping"}}),
    "pretrain spans overlapping": ("pretrain", {"model": MODERN, **SPANS}),
    "pretrain spans overlapping bert": ("pretrain", SPANS),
    "pretrain composed": ("pretrain", {"model": {"kmer_embedding": "composed"}}),
    "pretrain": ("pretrain", {}),
    "pretrain insert": ("pretrain", {"pretrain": {"masked": "insert"}}),
    "finetune frames": ("finetune", {}),
    "finetune overlapping": ("finetune", {"finetune": {"tokens": "overlapping"}}),
    "finetune smooth_l1": ("finetune", {"finetune": {"loss": "smooth_l1"}}),
    "finetune frozen": ("finetune", {"finetune": {"start": "frozen"}}),
}
"""Stages with the settings that change their operations."""
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive")
"""Operations of aten whose result a host must wait for."""


@dataclass
class Watch(TorchDispatchMode):
    """Record of the operations that mix devices or wait for the device."""

    operations: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in WAITS:
            self.problems.append(f"wait: {name}")
        out = function(*args, **(kwargs or {}))
        self.operations += 1
        inputs, outputs = (
            [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)] for tree in ((args, kwargs), out)
        )
        # As on a GPU, a scalar on the CPU may take part in any operation.
        devices = {one.device.type for one in outputs} | {one.device.type for one in inputs if one.dim()}
        if len(devices) > 1:
            self.problems.append(f"devices: {name} {sorted(devices)}")
        return out

    def run(self, work):
        """Run work under this watch. Returns its result, or None if it cannot go on."""
        try:
            with self:
                return work()
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            self.problems.append(f"wait: {error}")
        except RuntimeError as error:
            if "device" not in str(error):
                raise
            self.problems.append(f"devices: {error}")
        return None


def plant_cpu_arange(batch, sums):
    torch.arange(len(batch.lengths)) + batch.lengths
    return sums


def plant_cpu_index(batch, sums):
    batch.lengths[torch.arange(len(batch.lengths))]
    return sums


def plant_value(batch, sums):
    int(batch.lengths.max())
    return sums


def plant_nonzero(batch, sums):
    batch.weight.nonzero()
    return sums


def plant_bool_index(batch, sums):
    batch.expression[batch.weight > 0]
    return sums


def plant_copy(batch, sums):
    batch.lengths.cpu()
    return sums


def plant_half_loss(batch, sums):
    return sums._replace(loss=sums.loss.half())


def on_cpu(make, *args, **options):
    """Make a tensor without its device."""
    return make(*args, **{**options, "device": None})


PLANTED = (
    plant_cpu_arange, plant_cpu_index, plant_value, plant_nonzero, plant_bool_index, plant_copy, plant_half_loss,
)  # fmt: skip


def to_fake(task, device):
    """Move a task to the fake accelerator, which Module.to cannot do without untying tied weights."""
    moved = {}
    for module in task.modules():
        for name, weights in module._parameters.items():
            if weights is not None:
                new = torch.nn.Parameter(torch.empty_like(weights, device=device), weights.requires_grad)
                module._parameters[name] = moved.setdefault(weights, new)
        for name, values in module._buffers.items():
            module._buffers[name] = torch.empty_like(values, device=device)


def fake_passes(task, stage, batch, device):
    """A micro-batch on the fake accelerator in passes, with masks and without, and the draws of its rows."""
    here = torch.device("cpu")  # a GPU would round all these widths up to one
    draws = None
    if stage == "pretrain":
        draws = task.draw(batch, torch.Generator(here))
        draws = replace(draws, frame=torch.randint(draws.k, (batch.global_rows,), device=device))
    passes = task.cut(batch, here)
    return [pass_to_device(batch, one, draws, device) for one in passes], draws


def run_case(config, index, batch, stage, dtype, device, plant=None):
    """Run normalizer, forward, backward and evaluation of a task.

    Returns problems, dtypes and numbers of operations. plant: adds a fault to the training step.
    """
    task = build_task(config, index, stage).to(dtype).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        to_fake(task, device)
        fuse_projections(task.model)
        passes, draws = fake_passes(task, stage, batch, device)
        copies, training, evaluation = Watch(), Watch(), Watch()
        normalizer = copies.run(lambda: 1.0 / task.compute_normalizer(batch, draws))

        def step():
            sums = task(*passes)
            sums = plant(passes[0], sums) if plant else sums
            (sums.loss * normalizer).backward()
            torch.stack([sums.loss.detach().double(), sums.count.double(), sums.correct.double()])
            return sums

        def evaluate():
            with torch.inference_mode():
                return task.eval()(*passes)

        sums, held_out = training.run(step), evaluation.run(evaluate)
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    return {
        "normalizer": copies.problems,
        "problems": training.problems + evaluation.problems,
        "passes": [one.is_full for one in passes],
        "operations": [training.operations, evaluation.operations],
        "loss": describe(sums and sums.loss),
        "prediction": describe(held_out and held_out.prediction),
        "without_gradient": sum(parameter.grad is None for parameter in trained),
        "gradients": sorted({describe(parameter.grad) for parameter in trained if parameter.grad is not None}),
        "outputs": sorted({one.device.type for one in sums or () if isinstance(sums, Sums)}),
    }


def describe(tensor):
    """Device and dtype, such as "fakegpu float32"."""
    return "" if tensor is None else f"{tensor.device.type} {str(tensor.dtype).removeprefix('torch.')}"


def main():
    # So that few promoters make several passes.
    length_cut.PASS_TOKENS, length_cut.ROW_STEP, length_cut.MASK_COST["cpu"] = 0, 4, 1.15
    _setup_privateuseone_for_python_backend("fakegpu")
    device = torch.device("fakegpu", 0)
    config = Config.model_validate_json(Path(sys.argv[1]).read_text())
    index = read_index(shard_folder(config))
    results = {}
    for name, precision in product(CASES, PRECISIONS):
        stage, changes = CASES[name]
        sections = {key: getattr(config, key).model_copy(update=update) for key, update in changes.items()}
        case = config.model_copy(update=sections)
        stream = ShardStream(shard_folder(config), index, f"{stage}/train", 64, RankSlice(), seed=0)
        batch = next(stream.epoch(0)).micro_batches[0]
        results[f"{name} {precision}"] = run_case(case, index, batch, stage, PRECISIONS[precision], device)
    with patch.object(torch, "arange", partial(on_cpu, torch.arange)):
        results["lost_device"] = run_case(config, index, batch, stage, torch.float16, device)
    for plant in PLANTED:
        results[plant.__name__] = run_case(case, index, batch, stage, torch.float16, device, plant)
    Path("results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
