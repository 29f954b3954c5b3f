"""Compare the training steps of two checkouts of this project on a CPU, in turn, on the same measured promoters.

    python -m bench.training.before_after BEFORE AFTER --rows train_sequences.txt [--only NAME] [key=value ...]

Eager, float32, one thread, no dropout, as its draws depend on the order of the rows. Each checkout runs in a process of
its own and takes one step at a time. The first step is not timed, the second one is also counted. CPU s per promoter:
median of the timed steps. Operations: operator calls of torch in a step; waits: those whose value the host reads.
Padding: tokens that the model reads per token of the promoters. MB per promoter: activations that the forward pass
keeps, in float32. Loss difference: the largest one of a step, relative. In pretraining it is that of the first step, in
which both have the same masks.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure import ONE_THREAD, markdown
from model.bert import frames, masking, objectives
from model.bert.build import build_task
from model.config import Config, StageName, load_config
from model.distributed.process_group import World, init_group, leave_group
from model.training.ds_config import read_ds_config
from model.training.engine import start_engine
from pipeline.dataset.build import build_dataset
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from pipeline.stream.stream import Batch, RankSlice, ShardStream, Step

MARK = "RESULT "
SETTINGS = (
    "dataset.path=dataset.duckdb", "shards.path=shards", "dataset.finetune_valid=0.05", "dataset.finetune_test=0.05",
    "finetune.start=scratch", "model.dropout=0", "model.compile=false",
)  # fmt: skip
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive")
HEAD = ["", "CPU s per promoter", "operations", "waits", "passes", "padding", "MB per promoter", "loss difference"]


@dataclass(frozen=True)
class Preset:
    """Preset to measure. batch, micro_batch: promoters; steps: timed; as_gpu: take the widths and passes of a GPU."""

    config: str
    stage: StageName
    batch: int
    micro_batch: int
    steps: int
    as_gpu: bool


PRESETS = {
    "default-finetune": Preset("config.yaml", "finetune", 64, 64, 3, False),
    "default-pretrain": Preset("config.yaml", "pretrain", 128, 64, 3, False),
    "h200-finetune": Preset("configs/h200.yaml", "finetune", 512, 256, 2, True),
    "h200-pretrain": Preset("configs/h200.yaml", "pretrain", 512, 512, 2, True),
}
"""Steps of the H200's preset have 512 promoters in place of 4,096, and micro-batches that fit into 9 GB in float32."""


class Counts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operator calls, host waits, activations and input tokens of a step."""

    def __init__(self, task: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.waits = self.tokens = self.passes = self.saved_bytes = 0
        self._kept: dict[int, int] = {}
        self._own = {weights.untyped_storage().data_ptr() for weights in task.parameters()}
        (embeddings,) = (part for name, part in task.named_modules() if name.endswith("bert.embeddings"))
        task.register_forward_pre_hook(self._end_micro_batch)
        embeddings.register_forward_pre_hook(self._add_pass, with_kwargs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.waits += func.overloadpacket.__name__ in WAITS
        return func(*args, **(kwargs or {}))

    def _add_pass(self, _module: Any, _args: Any, inputs: dict[str, torch.Tensor]) -> None:
        self.passes, self.tokens = self.passes + 1, self.tokens + inputs["input_ids"].numel()

    def _end_micro_batch(self, *_: Any) -> None:
        self.saved_bytes += sum(self._kept.values())
        self._kept.clear()  # the next micro-batch takes the same addresses again

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in self._own:
            self._kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def count(self, work: Callable[[], None]) -> dict[str, float]:
        """Run a step and return its counts."""
        self.tokens = self.passes = 0
        with self, torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            work()
        self._end_micro_batch()
        return {name: getattr(self, name) for name in ("operations", "waits", "passes", "tokens", "saved_bytes")}


class SharedDraws:
    """Random numbers for masks that do not depend on the checkout: the masks of the step that is compared."""

    def __init__(self, rows: int, columns: int, k: int, _generator: torch.Generator) -> None:
        random = torch.Generator().manual_seed(0)
        self.frame = torch.randint(k, (rows,), generator=random)
        self._select = torch.rand((rows, columns), generator=random)
        self._swap = torch.randint(5, 5 + 5**k, (rows, columns), generator=random)

    def slice_rows(self, first: int, rows: int) -> masking.Draws:
        """Take `rows` rows from row `first` on."""
        return self.select_rows(torch.arange(first, first + rows), self._select.shape[1])

    def select_rows(self, rows: torch.Tensor, columns: int) -> masking.Draws:
        """Take some rows, and their first columns."""
        return masking.Draws(self.frame[rows], self._select[rows, :columns], self._swap[rows, :columns])


def shape_as_on_gpu(task: Any) -> None:
    """Take the widths of a GPU and, if the checkout has them, its passes and fused projections."""

    def choose_width(longest: int, mode: str, k: int, _device: torch.device) -> int:
        return frames.choose_width(longest, mode, k, torch.device("cuda"))

    objectives.choose_width = choose_width  # type: ignore[assignment, attr-defined]
    try:
        from model.bert import length_cut
        from model.bert.fused_attention import fuse_projections
    except ImportError:
        return
    length_cut.choose_width = choose_width  # type: ignore[assignment, attr-defined]
    length_cut.MASK_COST["cpu"] = length_cut.MASK_COST["cuda"]
    fuse_projections(task.model)


def make_step(rows: Batch, chosen: Any, micro_batches: int, number: int) -> Step:
    """Make a step of chosen rows of a split."""
    shared = {"global_rows": len(chosen), "global_lengths": rows.lengths[chosen], "global_values": len(chosen)}
    known, parts, first = {field.name for field in fields(Batch)}, [], 0
    for part in np.array_split(chosen, micro_batches):
        own = {name: getattr(rows, name)[part] for name in ("tokens", "lengths", "expression", "id", "weight")}
        values = {**own, **shared, "first_row": first}
        parts.append(Batch(**{name: value for name, value in values.items() if name in known}))
        first += len(part)
    return Step(0, number, first, parts)


def read_split(config: Config, stage: StageName) -> tuple[Batch, Any]:
    """Read the training split of a stage. Returns its rows, and an order that is the same for all checkouts."""
    folder = shard_folder(config)
    index, split = read_index(folder), f"{stage}/train"
    (one,) = ShardStream(folder, index, split, index.rows(split), RankSlice()).epoch(0)
    (rows,) = one.micro_batches
    keys = [(tokens.tobytes(), value) for tokens, value in zip(rows.tokens, rows.expression.tolist(), strict=True)]
    return rows, np.array(sorted(range(len(keys)), key=keys.__getitem__))


def take_steps(config: Config, preset: Preset, ds_config: Path, world: World) -> Iterator[dict[str, float]]:
    """Take the steps of a preset: yield loss and CPU time per promoter of each, and the counts of one."""
    index, stage = read_index(shard_folder(config)), preset.stage
    torch.manual_seed(1)
    task: Any = build_task(config, index, stage)
    if preset.as_gpu:
        shape_as_on_gpu(task)
    engine = start_engine(stage, config.stage(stage), task, read_ds_config(ds_config, False), world, 0)
    engine.deepspeed.train()
    (rows, order), size = read_split(config, stage), config.stage(stage).global_batch
    random, draw = np.random.default_rng(0), objectives.draw  # type: ignore[attr-defined]
    for number in range(1 + preset.steps):
        chosen = order[random.choice(len(order), size, replace=False)]
        step, sums = make_step(rows, chosen, engine.plan.micro_batches, number), torch.zeros(3, dtype=torch.float64)
        work, counts, start = partial(engine.train_step, step, sums), {}, time.process_time()
        with patch.object(objectives, "draw", draw if number else SharedDraws):
            if number == 1:
                counts = Counts(task).count(work)
            else:
                work()
        seconds = (time.process_time() - start) / size
        own = sum(((rows.lengths[chosen] - frame) // index.k + 2).sum() for frame in range(index.k))
        yield {"seconds": seconds, "loss": float(sums[0] / sums[1]), "rows": size, "own_tokens": float(own), **counts}


def run_child(name: str, rows: str, overrides: list[str]) -> None:
    """Take a step of a preset for each line of standard input, in the current checkout, and print its numbers."""
    torch.set_num_threads(1)
    root, preset, ds_config = Path(objectives.__file__).parents[2], PRESETS[name], Path("ds.json")
    ds_config.write_text(json.dumps({
        **json.loads((root / "ds_config.json").read_text()), "train_micro_batch_size_per_gpu": preset.micro_batch
    }))  # fmt: skip
    settings = [*SETTINGS, f"{preset.stage}.global_batch={preset.batch}", *overrides]
    config = load_config(root / preset.config, settings)
    build_dataset([rows], config)
    write_shards(config)
    steps = take_steps(config, preset, ds_config, init_group())
    for _ in range(1 + preset.steps):
        sys.stdin.readline()
        print(MARK + json.dumps(next(steps)), flush=True)
    leave_group()


def start_child(checkout: Path, folder: Path, arguments: list[str]) -> "subprocess.Popen[str]":
    """Start this file with the packages of a checkout."""
    folder.mkdir()
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(checkout.absolute())}
    command = [sys.executable, "-P", str(Path(__file__).absolute()), "--child", *arguments]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)


def ask(child: Any) -> dict[str, Any]:
    """Let a child take a step. Returns its numbers."""
    child.stdin.write("\n")
    child.stdin.flush()
    line = next((line for line in child.stdout if line.startswith(MARK)), None)
    if line is None:
        sys.exit(f"{child.args}: ended with exit code {child.wait()}")
    return dict(json.loads(line.removeprefix(MARK)))


def compare(checkouts: list[Path], name: str, rows: Path, overrides: list[str]) -> list[list[str]]:
    """Measure a preset in both checkouts, in turn. Returns the lines of the table."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [name, str(rows.absolute()), *overrides]
        children = [start_child(path, Path(folder) / str(i), arguments) for i, path in enumerate(checkouts)]
        both = [[ask(child) for child in children] for _ in range(1 + PRESETS[name].steps)]
        for child in children:
            child.wait()
    print(name, json.dumps(both), file=sys.stderr, flush=True)
    compared = both[:1] if PRESETS[name].stage == "pretrain" else both
    difference = max(abs(before["loss"] / after["loss"] - 1) for before, after in compared)
    lines = []
    for which, steps in zip(("before", "after"), zip(*both, strict=True), strict=True):
        counts, seconds = steps[1], statistics.median(step["seconds"] for step in steps[1:])
        whole = [f"{counts[key]:,}" for key in ("operations", "waits", "passes")]
        memory = counts["saved_bytes"] / counts["rows"] / 1e6
        frames = 1 if PRESETS[name].stage == "finetune" else 3  # pretraining reads one of the three reading frames
        padding = counts["tokens"] * frames / counts["own_tokens"]
        lines.append([f"{name}, {which}", f"{seconds:.4f}", *whole, f"{padding:.3f}", f"{memory:.1f}",
                      f"{difference:.0e}"])  # fmt: skip
    return lines


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("before", type=Path, help="folder of a checkout")
    cli.add_argument("after", type=Path, help="folder of a checkout")
    cli.add_argument("--rows", type=Path, required=True, help="text file of promoters and labels")
    cli.add_argument("--only", choices=PRESETS, action="append", help="default: all")
    cli.add_argument("overrides", nargs="*", metavar="key=value")
    args = cli.parse_intermixed_args()
    checkouts, names = [args.before, args.after], args.only or PRESETS
    print(markdown(HEAD, [line for name in names for line in compare(checkouts, name, args.rows, args.overrides)]))


if __name__ == "__main__":
    main()
