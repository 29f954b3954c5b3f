"""Training rate of a configuration on this machine: a fixed number of its own steps, on synthetic promoters.

python -m bench.training.bench_train --config configs/h200.yaml --deepspeed_config configs/ds_h200.json
deepspeed --module bench.training.bench_train ...      on several GPUs of one machine
... --deepspeed_config A --deepspeed_config B          one row per stage and DeepSpeed config
... --trace trace.json finetune.global_batch=1024      with a profile of the first row; key=value overrides
"""

import argparse
import gc
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.training.timing import StepPlan, count_host_waits, profile_steps, time_steps
from model.bert.build import build_task
from model.bert.flops import StageCost, make_stage_cost, measure_matmul_rate
from model.bert.rng import derive_seed
from model.config import STAGES, Config, Stage, StageName, load_config
from model.distributed.process_group import World, join_group, run_on_rank0, sum_over_ranks
from model.training.ds_config import DeepSpeedSettings, read_ds_config
from model.training.engine import start_engine
from model.training.throughput import measure_peak_memory
from model.watchdog.client import start_watchdog
from pipeline.dataset.build import build_dataset
from pipeline.dataset.synthetic.generate import generate
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder
from pipeline.paths import shipped
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from pipeline.stream.stream import RankSlice, ShardStream, Step

STEPS_PER_EPOCH = 40
"""Global batches of synthetic promoters: a new epoch is rare, as in a real run."""
MIN_ROWS = 20_000
DATASET = {
    "split": "random", "duplicates": "keep", "top_fraction": 0.5, "pretrain_valid": 0.01, "finetune_valid": 0.01,
    "finetune_test": 0.01, "finetune_train": "all",
}  # fmt: skip
"""Settings of the dataset of synthetic promoters; half of them are used for pretraining."""


@dataclass(frozen=True)
class MeasurementSpec:
    """Configuration and stage to measure. backend: of torch.compile, or empty; trace: file for a profile."""

    config: Config
    stage_name: StageName
    settings: DeepSpeedSettings
    plan: StepPlan
    backend: str = ""
    trace: Path | None = None

    @property
    def stage(self) -> Stage:
        """Return the stage's section of the configuration."""
        return self.config.stage(self.stage_name)

    @property
    def name(self) -> str:
        """Return the name of the row."""
        tf32 = self.settings.precision == "fp32" and self.config.model.tf32
        return (
            f"{self.stage_name}, {'tf32' if tf32 else self.settings.precision}, ZeRO {self.settings.zero_stage}, "
            f"batch {self.stage.global_batch}, {self.backend or 'eager'}"
        )


@dataclass(frozen=True)
class Measurement:
    """Rates of a configuration in a stage, over all ranks.

    promoters_per_second: median of three parts of the steps; slowest, fastest: of these parts. operations_per_second:
    useful FLOP per second (see flops.py). matmul_per_second: FLOP per second of plain matrix products in the same
    precision. data_wait: share of the time. gigabytes: peak memory. host_waits: waits for the GPU per step; None on a
    CPU.
    """

    name: str
    promoters_per_second: float
    slowest: float
    fastest: float
    tokens_per_second: float
    operations_per_second: float
    matmul_per_second: float
    data_wait: float
    gigabytes: float
    host_waits: int | None

    @property
    def utilization(self) -> float:
        """Return the FLOP utilization relative to the measured matmul rate, at most 1, as that may be too low."""
        return min(self.operations_per_second / self.matmul_per_second, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """Return the values for --json."""
        return {**asdict(self), "flop_utilisation": self.utilization}

    def as_line(self) -> str:
        """Format the measurement as a line for a terminal."""
        waits = f", {self.host_waits} host waits per step" if self.host_waits is not None else ""
        return (
            f"{self.name}: {self.promoters_per_second:,.0f} promoters/s ({self.slowest:,.0f} to {self.fastest:,.0f}), "
            f"{self.tokens_per_second:,.0f} tokens/s, {self.operations_per_second / 1e12:,.3g} TFLOP/s, "
            f"{self.utilization:.1%} of matmul ({self.matmul_per_second / 1e12:,.3g}), data wait {self.data_wait:.2%}, "
            f"{self.gigabytes:.1f} GB{waits}"
        )


def bench_train(
    config: Config,
    ds_configs: Sequence[Path],
    stages: Sequence[StageName],
    plan: StepPlan,
    world: World,
    rows: int | None = None,
    trace: Path | None = None,
    on_row: Callable[[Measurement], None] = lambda _: None,
) -> list[Measurement]:
    """Measure each stage with each DeepSpeed config, in a temporary folder. All ranks, of one machine, call this.

    rows: synthetic promoters; None for 40 steps per epoch. trace: profile of the first row. Raises UserError for
    invalid settings before the first measurement.
    """
    check_trace(trace)
    settings = [read_ds_config(path, world.device.type == "cuda") for path in ds_configs]
    backend = "inductor" if config.model.compile else ""
    with tempfile.TemporaryDirectory(prefix="bench-train-") as own:
        folder = Path(run_on_rank0(world, lambda: own))
        batches = [config.stage(stage).global_batch for stage in stages]
        enough = max(MIN_ROWS, 2 * STEPS_PER_EPOCH * max(batches)) if rows is None else rows
        synthetic = synthetic_config(config, folder)
        run_on_rank0(world, lambda: make_shards(synthetic, folder, enough))
        measurements: list[Measurement] = []
        for each, stage in itertools.product(settings, stages):
            spec = MeasurementSpec(synthetic, stage, each, plan, backend, None if measurements else trace)
            measurements.append(measure(spec, world))
            on_row(measurements[-1])
        run_on_rank0(world, lambda: None)  # rank 0 removes the folder
    return measurements


def check_trace(trace: Path | None) -> None:
    """Raise UserError if a profile cannot be written to a path."""
    if trace is None:
        return
    if trace.suffix != ".json" or trace.is_dir():
        raise UserError(f"{trace}: expected a name ending in .json")
    expect_folder(trace)


def synthetic_config(config: Config, folder: Path) -> Config:
    """Replace the dataset and shards of a configuration by those that make_shards writes to a folder."""
    assay = config.assay.model_copy(update={"missing_adapters": "add", "min_expression": 0.0, "max_expression": 17.0})
    dataset = config.dataset.model_copy(update={**DATASET, "path": str(folder / "dataset.duckdb")})
    shards = config.shards.model_copy(update={"path": str(folder / "shards")})
    return config.model_copy(update={"assay": assay, "dataset": dataset, "shards": shards})


def make_shards(config: Config, folder: Path, rows: int) -> None:
    """Generate promoters, and write the dataset and the shards of a configuration."""
    generate(folder / "rows.tsv", rows)
    build_dataset([str(folder / "rows.tsv")], config)
    write_shards(config)


def measure(spec: MeasurementSpec, world: World) -> Measurement:
    """Time the step of the training loop on the stream of the training split."""
    config, stage, plan = spec.config, spec.stage, spec.plan
    free_memory(world.device)
    if world.device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.model.tf32 else "highest")
    matmul_rate = torch.tensor(measure_matmul_rate(world.device, spec.settings.precision), device=world.device)
    (matmul,) = sum_over_ranks(matmul_rate)
    index = read_index(shard_folder(config))
    torch.manual_seed(derive_seed(config.run.seed, spec.stage_name, "weights"))
    task = build_task(config, index, spec.stage_name)
    engine = start_engine(spec.stage_name, stage, task, spec.settings, world, config.run.seed)
    rank_slice = RankSlice(world.rank, world.ranks, engine.plan.micro_batches)
    stream = ShardStream(
        shard_folder(config), index, f"{spec.stage_name}/train", stage.global_batch, rank_slice, config.run.seed,
        reverse_complement=stage.reverse_complement,
    )  # fmt: skip
    counter = _StepCounter(world.device, make_stage_cost(config, index, spec.stage_name))
    with _destroy_after(engine.deepspeed), closing(full_steps(stream)) as steps:
        if spec.backend:
            engine.compile(spec.backend)
        engine.deepspeed.train()

        def take_step() -> int:
            start = time.perf_counter()
            step = next(steps)
            counter.wait_s += time.perf_counter() - start
            engine.train_step(step, counter.sums)
            counter.add_step(step)
            return step.micro_batches[0].global_rows

        rates = time_steps(take_step, plan, world.device, counter.restart)
        seconds = time.perf_counter() - counter.start
        per_promoter = [each / counter.promoters for each in (counter.tokens, counter.operations)]
        data_wait = counter.wait_s / seconds
        host_waits = count_host_waits(take_step, world.device)
        if spec.trace is not None:
            profile_steps(take_step, spec.trace if world.is_rank0 else None)
    return Measurement(
        name=spec.name,
        promoters_per_second=rates.median,
        slowest=rates.slowest,
        fastest=rates.fastest,
        tokens_per_second=per_promoter[0] * rates.median,
        operations_per_second=per_promoter[1] * rates.median,
        matmul_per_second=matmul,
        data_wait=data_wait,
        gigabytes=measure_peak_memory(world.device) / 1e9,
        host_waits=host_waits,
    )


@contextmanager
def _destroy_after(engine: Any) -> Iterator[None]:
    """Free the memory of an engine at the end, also after an error, for the next measurement."""
    try:
        yield
    finally:
        engine.destroy()


class _StepCounter:
    """Counter in place of the training loop's meter: sums on the device, and totals since the clock started."""

    def __init__(self, device: torch.device, cost: StageCost) -> None:
        self._cost = cost
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.restart()

    def restart(self) -> None:
        """Reset the totals, and start the clock."""
        self.promoters, self.tokens, self.operations, self.wait_s = 0, 0.0, 0.0, 0.0
        self.start = time.perf_counter()

    def add_step(self, step: Step) -> None:
        """Add the promoters, tokens and FLOP of a step of all ranks."""
        batch = step.micro_batches[0]
        tokens, operations = self._cost.count(batch.global_lengths)
        self.promoters += batch.global_rows
        self.tokens += tokens
        self.operations += operations


def full_steps(stream: ShardStream) -> Generator[Step]:
    """Yield steps of whole global batches, epoch after epoch. Raises UserError if the split is smaller than one."""
    if stream.rows < stream.global_batch:
        raise UserError(
            f"{stream.split}: expected at least {stream.global_batch:,} promoters (one global batch), got "
            f"{stream.rows:,}; fix: a larger --rows"
        )
    for epoch in itertools.count():
        with closing(stream.epoch(epoch)) as steps:  # type: ignore[type-var]
            yield from (step for step in steps if step.micro_batches[0].global_rows == stream.global_batch)


def free_memory(device: torch.device) -> None:
    """Free the memory of the previous measurement."""
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("overrides", nargs="*", metavar="key=value")
    cli.add_argument("--config", type=Path, default=shipped("config.yaml"))
    cli.add_argument("--deepspeed_config", type=Path, action="append", help="default: ds_config.json")
    cli.add_argument("--stage", choices=STAGES, help="default: both")
    cli.add_argument("--steps", type=int, default=100, help="timed steps, in three parts; default: 100")
    cli.add_argument("--warm-up", type=int, default=20, help="untimed steps before; default: 20")
    cli.add_argument("--rows", type=int, help="synthetic promoters; default: enough for 40 steps per epoch")
    cli.add_argument(
        "--trace", type=Path, help=".json profile of three steps of the first row, for chrome://tracing; default: none"
    )
    cli.add_argument("--json", action="store_true", help="print the rows as JSON")
    cli.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # from DeepSpeed's launcher
    args = cli.parse_intermixed_args()
    stages = [name for name in STAGES if args.stage in (None, name)]
    try:
        config = load_config(args.config, args.overrides)
        with start_watchdog(os.environ) as watchdog, join_group(watchdog) as world:

            def show(row: Measurement) -> None:
                if world.is_rank0:
                    print(row.as_line(), file=sys.stderr if args.json else sys.stdout, flush=True)

            files = args.deepspeed_config or [shipped("ds_config.json")]
            plan = StepPlan(args.warm_up, args.steps)
            rows = bench_train(config, files, stages, plan, world, args.rows, args.trace, show)
            if world.is_rank0 and args.json:
                print(json.dumps({"rows": [row.as_dict() for row in rows]}))
    except UserError as error:
        cli.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
