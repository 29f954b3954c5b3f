"""Estimate the speed of the training step on an H200 from its operations, as a table in Markdown. Needs no GPU.

    python -m bench.training.roofline

The step of configs/h200.yaml is traced for a full pass (128 tokens per sequence) in fp16: forward and backward pass as
torch.compile gets them. Floating-point operations and bytes of each operation follow from the shapes. An operation
takes the longer of its times for computing and for moving bytes. Two cases bound the rest of the table:

- eager: each operation reads its inputs and writes its outputs; attention has a mask.
- compiled: operations between matrix products and attention are fused. Only tensors are moved that one of these two
  reads or writes, or that are kept for the backward pass. Attention has no mask.

Rates of an H200: 989 TFLOP/s in fp16 and 4.8 TB/s (data sheet). The fractions of them that kernels reach are
assumptions: see RATES.
"""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition  # type: ignore[import-untyped]
from torch._dynamo.backends.common import aot_autograd
from torch.utils.flop_counter import flop_registry

from bench.measure import markdown
from bench.training.bench_train import make_shards, synthetic_config
from model.bert import objectives
from model.bert.build import build_task
from model.bert.device_batch import DeviceBatch
from model.bert.flops import make_stage_cost
from model.bert.fused_attention import FusedSelfAttention, fuse_projections
from model.bert.masking import IGNORED, draw
from model.config import STAGES, Config, StageName, load_config
from pipeline.paths import ROOT
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder

NOMINAL, BANDWIDTH = 989e12, 4.8e12
RATES = {"matrix products": 0.70, "attention": 0.40, "attention with a mask": 0.15, "memory": 0.80}
"""Assumed fractions: of the nominal FLOP/s, for memory of the bandwidth. cuBLAS reaches 65 to 75 % at these shapes,
FlashAttention 40 to 60 % at width 64 and long sequences, and kernels with an arbitrary mask about a third of that."""
ROWS, BASES = 4, 380
PARAMETER_BYTES = 34
"""Per parameter and step: Adam reads gradient, weight and two moments in float32 and writes three of them; the
gradient is cleared, scaled and checked in fp16; the fp16 copy is written."""
VIEWS = (
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "select", "slice",
    "split", "split_with_sizes", "unbind", "alias", "detach", "getitem", "as_strided",
)  # fmt: skip


@dataclass
class Work:
    """Floating-point operations, bytes and seconds of a kind of operation."""

    operations: float = 0.0
    moved: float = 0.0
    seconds: float = 0.0

    def add(self, operations: float, moved: float, rate: float) -> None:
        """Add an operation. rate: FLOP/s."""
        self.operations, self.moved = self.operations + operations, self.moved + moved
        self.seconds += max(operations / rate, moved / (RATES["memory"] * BANDWIDTH))


@dataclass
class Trace:
    """Work of a traced step, in both cases. kernels: launches of the eager step and at least of the compiled one."""

    products: Work = field(default_factory=Work)
    attention: Work = field(default_factory=Work)
    masked: Work = field(default_factory=Work)
    eager: Work = field(default_factory=Work)
    fused: Work = field(default_factory=Work)
    kernels: list[int] = field(default_factory=lambda: [0, 0])


class GpuDropout(torch.nn.Dropout):
    """Dropout as on a GPU, with a mask of one byte per value."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Apply dropout."""
        return torch.native_dropout(values, self.p, self.training)[0]


class TraceEndError(Exception):
    """End of a trace: both graphs are known, and need not run."""


def end_trace(*_: Any) -> None:
    """End the trace."""
    raise TraceEndError


def name_of(node: torch.fx.Node) -> str:
    """Return the name of a node's operation."""
    return str(getattr(node.target, "overloadpacket", node.target)).rpartition(".")[2].strip("<>").split(" ")[-1]


def size_of(value: Any) -> float:
    """Return the bytes of a tensor, or of all tensors of a tuple."""
    if isinstance(value, torch.Tensor):
        return float(value.numel() * value.element_size())
    return sum(map(size_of, value)) if isinstance(value, list | tuple) else 0.0


def is_barrier(node: torch.fx.Node) -> bool:
    """Return whether an operation is a kernel of its own: a matrix product or attention."""
    return getattr(node.target, "overloadpacket", None) in flop_registry or "attention" in name_of(node)


def add_graph(trace: Trace, graph: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
    """Add the operations of a traced graph. Returns a function that ends the trace instead of running the graph."""
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            trace.fused.moved += _read_by_fused(node)
        if node.op != "call_function" or name_of(node) in VIEWS:
            continue
        value = node.meta["val"]
        moved = size_of(value) + sum(size_of(one.meta["val"]) for one in node.all_input_nodes)
        trace.kernels[0] += 1
        if is_barrier(node):
            trace.kernels[1] += 1
            _add_barrier(trace, node, moved)
            trace.fused.moved += _read_by_fused(node)
            continue
        trace.eager.add(0.0, moved, NOMINAL)
        if any(is_barrier(user) or user.op == "output" for user in _users(node)):
            trace.kernels[1] += 1
            trace.fused.moved += size_of(value)
    return make_boxed_func(end_trace)  # type: ignore[no-any-return]


def _users(node: torch.fx.Node) -> list[torch.fx.Node]:
    """List the operations that read a result, also through views."""
    return [
        reader
        for user in node.users
        for reader in (_users(user) if user.op == "call_function" and name_of(user) in VIEWS else [user])
    ]


def _read_by_fused(node: torch.fx.Node) -> float:
    """Return the bytes of a result if fused operations read it from memory."""
    is_read = any(user.op == "call_function" and not is_barrier(user) for user in _users(node))
    value = node.meta["val"]
    return size_of(value) if is_read else 0.0


def _add_barrier(trace: Trace, node: torch.fx.Node, moved: float) -> None:
    if "attention" in name_of(node):
        query = node.args["backward" in name_of(node)].meta["val"]  # type: ignore[union-attr, call-overload]
        rows, heads, columns, width = query.shape
        products = 5 if "backward" in name_of(node) else 2
        operations = 2.0 * products * rows * heads * columns**2 * width
        trace.attention.add(operations, moved, RATES["attention"] * NOMINAL)
        trace.masked.add(operations, moved, RATES["attention with a mask"] * NOMINAL)
        return
    count = flop_registry[node.target.overloadpacket]  # type: ignore[union-attr]
    arguments = [one.meta["val"] if isinstance(one, torch.fx.Node) else one for one in node.args]
    operations = float(count(*arguments, out_val=node.meta["val"]))
    trace.products.add(operations, moved, RATES["matrix products"] * NOMINAL)


def find_expected_positions(labels: torch.Tensor, share: float) -> torch.Tensor:
    """Reserve the expected number of masked k-mers: in a large batch, the 3 % reserved in addition do not matter."""
    is_masked = (labels != IGNORED).flatten()
    return torch.nonzero_static(is_masked, size=round(share * labels.numel()), fill_value=0)[:, 0]


def trace_step(config: Config, stage: StageName) -> tuple[Trace, int]:
    """Trace forward and backward pass of a full pass. Returns the work per token, and the parameters."""
    task = build_task(config, read_index(shard_folder(config)), stage).half().train()
    fuse_projections(task.model)
    for parent in list(task.modules()):
        for name, child in parent.named_children():
            if isinstance(parent, FusedSelfAttention) and name == "dropout":
                cast(Any, child).p = 0.0  # a GPU's attention draws its dropout within the kernel
            elif type(child) is torch.nn.Dropout:
                setattr(parent, name, GpuDropout(child.p))
    lengths = torch.full((ROWS,), BASES)
    drawn = draw(ROWS, BASES // 3 + 2, 3, torch.Generator().manual_seed(0))
    draws = drawn.slice_rows(0, ROWS) if stage == "pretrain" else None
    tokens = torch.randint(5, 130, (ROWS, BASES // 3 * 3), dtype=torch.uint8)
    batch = DeviceBatch(tokens, lengths, torch.zeros(ROWS), torch.ones(ROWS), draws, is_full=True)
    trace = Trace()
    collect = partial(add_graph, trace)
    backend = aot_autograd(fw_compiler=collect, bw_compiler=collect, partition_fn=min_cut_rematerialization_partition)
    # Otherwise the graph of the backward pass is made only when it runs.
    both = torch._functorch.config.patch(force_non_lazy_backward_lowering=True)
    expected = patch.object(objectives, "find_masked_positions", find_expected_positions)
    with both, expected, suppress(TraceEndError):
        torch.compile(task.compute_sums, backend=backend, fullgraph=True)(batch)
    trace.fused.seconds = trace.fused.moved / (RATES["memory"] * BANDWIDTH)
    return trace, sum(parameter.numel() for parameter in task.parameters())


def table(config: Config, stage: StageName) -> str:
    """Format the estimate of a stage."""
    trace, parameters = trace_step(config, stage)
    batch = config.stage(stage).global_batch
    cost = make_stage_cost(config, read_index(shard_folder(config)), stage)
    tokens, useful = cost.count(torch.full((ROWS,), BASES).numpy())
    adam = Work()
    adam.add(0.0, PARAMETER_BYTES * parameters, NOMINAL)
    step_tokens = tokens / ROWS * batch
    rows, totals = [], [0.0, 0.0]
    parts = [
        ("matrix products", trace.products, trace.products, tokens),
        ("attention", trace.masked, trace.attention, tokens),
        ("other operations", trace.eager, trace.fused, tokens),
        ("optimizer", adam, adam, step_tokens),
    ]
    for name, eager, compiled, divisor in parts:
        times = [one.seconds / divisor * 1e9 for one in (eager, compiled)]
        totals = [total + time for total, time in zip(totals, times, strict=True)]
        kilobytes = [f"{one.moved / divisor / 1e3:,.1f}" for one in (eager, compiled)]
        rows.append([name, f"{eager.operations / divisor / 1e6:.1f}", *kilobytes, *(f"{time:.1f}" for time in times)])
    rows.append(["sum", f"{useful / tokens / 1e6:.1f} useful", "", "", *(f"{total:.1f}" for total in totals)])
    shares = [useful / tokens / (total * 1e-9) / NOMINAL for total in totals]
    rows.append(["share of 989 TFLOP/s", "", "", "", *(f"{share:.0%}" for share in shares)])
    budget = useful / tokens / (0.5 * NOMINAL) * 1e9
    head = ["", "MFLOP", "KB, eager", "KB, compiled", "ns, eager", "ns, compiled"]
    step_ms = [total * step_tokens * 1e-6 for total in totals]
    return (
        f"{stage}, per token. 50 % of the nominal rate allow {budget:.0f} ns. A step of {batch:,} promoters has "
        f"{step_tokens:,.0f} tokens and takes {step_ms[0]:.0f} ms (eager) or {step_ms[1]:.0f} ms (compiled). It has "
        f"{trace.kernels[0]} operations, and at least {trace.kernels[1]} kernels if compiled.\n\n"
        f"{markdown(head, rows)}"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = synthetic_config(load_config(ROOT / "configs" / "h200.yaml"), Path(folder))
        make_shards(config, Path(folder), 600)
        torch.manual_seed(0)
        print("\n\n".join(table(config, stage) for stage in STAGES))


if __name__ == "__main__":
    main()
