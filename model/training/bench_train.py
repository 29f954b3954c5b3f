"""How fast configurations train on this machine: a fixed number of their own steps, on generated promoters."""

import gc
import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model.bert.build import build_task
from model.bert.flops import StageCost, matmul_rate, stage_cost
from model.bert.rng import seed_of
from model.config import Config, Stage, StageName
from model.distributed.process_group import World, run_on_rank0, sums_over_ranks
from model.training.ds_config import DeepSpeedSettings, read_ds_config
from model.training.engine import start_engine
from model.training.throughput import peak_memory
from model.training.timing import Plan, host_waits, profile, timed
from pipeline.dataset.build import build_dataset
from pipeline.dataset.synthetic import generate
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder
from pipeline.shards.index import read_index
from pipeline.shards.staleness import shard_folder
from pipeline.shards.write import write_shards
from pipeline.stream.stream import Part, Step, Stream

STEPS_AN_EPOCH = 40
"""Global batches that are generated: as in a real run, epochs seldom begin anew."""
FEWEST_ROWS = 20_000
SIZES = {
    "split": "random", "duplicates": "keep", "top_fraction": 0.5, "pretrain_valid": 0.01, "finetune_valid": 0.01,
    "finetune_test": 0.01, "finetune_train": "all",
}  # fmt: skip
"""Of the dataset of generated promoters, half of which are pretrained on."""


@dataclass(frozen=True)
class Measured:
    """What a configuration does in a stage, over all ranks. promoters_per_second is the median, slowest and fastest are
    those of three parts of the steps.

    operations: useful ones (see flops.py); matmul: those of the devices in plain matrix products of the same precision;
    data_wait: share of the time; host_waits: waits for the GPU in a step, None on a CPU.
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
    def utilisation(self) -> float:
        """Share of the plain matrix products' rate."""
        return self.operations_per_second / self.matmul_per_second

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "flop_utilisation": self.utilisation}


@dataclass(frozen=True)
class Measurement:
    """What to measure. backend: torch.compile's, or empty; trace: file for a profile of three further steps."""

    config: Config
    stage: StageName
    settings: DeepSpeedSettings
    plan: Plan
    backend: str = ""
    trace: Path | None = None

    @property
    def of_stage(self) -> Stage:
        """The stage's section."""
        return self.config.stage(self.stage)

    @property
    def name(self) -> str:
        """What its row is called."""
        tf32 = self.settings.precision == "fp32" and self.config.model.tf32
        return (
            f"{self.stage}, {'tf32' if tf32 else self.settings.precision}, ZeRO {self.settings.zero_stage}, "
            f"batch {self.of_stage.global_batch}, {self.backend or 'eager'}"
        )


def bench_train(
    config: Config,
    ds_configs: Sequence[Path],
    stages: Sequence[StageName],
    plan: Plan,
    world: World,
    rows: int | None = None,
    trace: Path | None = None,
    told: Callable[[int, int, str], None] = lambda _done, _total, _name: None,
) -> list[Measured]:
    """Measure each stage with each DeepSpeed config, in a temporary folder. All ranks, of one machine, call this.

    rows: promoters generated, None: so many that an epoch has 40 steps; trace: for the first row. told: of steps done,
    steps in all and the row. Raises UserError for settings that cannot be used, before anything is measured.
    """
    check_trace(trace)
    cuda = world.device.type == "cuda"
    settings = [read_ds_config(path, cuda) for path in ds_configs]
    backend = "inductor" if config.model.compile else ""
    with tempfile.TemporaryDirectory(prefix="bench-train-") as own:
        folder = run_on_rank0(world, lambda: own)
        batches = [config.stage(stage).global_batch for stage in stages]
        enough = max(FEWEST_ROWS, 2 * STEPS_AN_EPOCH * max(batches)) if rows is None else rows
        here = made(config, Path(folder))
        run_on_rank0(world, lambda: make_shards(here, Path(folder), enough))
        asked = [
            Measurement(here, stage, each, plan, backend, trace if number == 0 else None)
            for number, (each, stage) in enumerate(itertools.product(settings, stages))
        ]
        found: list[Measured] = []

        def step_done(steps: int) -> None:
            told(len(found) * plan.total + min(steps, plan.total), len(asked) * plan.total, asked[len(found)].name)

        for one in asked:
            found.append(measure(one, world, step_done))
        run_on_rank0(world, lambda: None)  # rank 0 takes the folder away
    return found


def check_trace(trace: Path | None) -> None:
    """Raise UserError where a profile cannot be written there; a table gets the name that ends in .txt beside it."""
    if trace is None:
        return
    if trace.suffix != ".json" or trace.is_dir():
        raise UserError(f"{trace}: expected the name of a file that ends in .json")
    expect_folder(trace)


def made(config: Config, folder: Path) -> Config:
    """The configuration with the dataset and shards that make_shards puts into a folder."""
    assay = config.assay.model_copy(update={"missing_adapters": "add", "min_expression": 0.0, "max_expression": 17.0})
    dataset = config.dataset.model_copy(update={**SIZES, "path": str(folder / "dataset.duckdb")})
    shards = config.shards.model_copy(update={"path": str(folder / "shards")})
    return config.model_copy(update={"assay": assay, "dataset": dataset, "shards": shards})


def make_shards(config: Config, folder: Path, rows: int) -> None:
    """Generate promoters, build, and write the shards that a configuration names."""
    generate(folder / "rows.tsv", rows)
    build_dataset([str(folder / "rows.tsv")], config)
    write_shards(config)


def measure(asked: Measurement, world: World, told: Callable[[int], None] = lambda _: None) -> Measured:
    """The training loop's own step on the training split's own stream. told: of the steps done."""
    config, stage, plan = asked.config, asked.of_stage, asked.plan
    forget(world.device)
    if world.device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.model.tf32 else "highest")
    matmul = sums_over_ranks(torch.tensor(matmul_rate(world.device, asked.settings.precision), device=world.device))[0]
    index = read_index(shard_folder(config))
    torch.manual_seed(seed_of(config.run.seed, asked.stage, "weights"))
    task = build_task(config, index, asked.stage)
    engine = start_engine(asked.stage, stage, task, asked.settings, world, config.run.seed)
    part = Part(world.rank, world.ranks, engine.plan.micro_batches)
    stream = Stream(
        shard_folder(config), index, f"{asked.stage}/train", stage.global_batch, part, config.run.seed,
        reverse_complement=stage.reverse_complement,
    )  # fmt: skip
    meter = _Counts(world.device, stage_cost(config, index, asked.stage))
    with _let_go(engine.deepspeed), closing(full_steps(stream)) as steps:
        if asked.backend:
            engine.deepspeed.compile(backend=asked.backend)
        engine.deepspeed.train()

        def step() -> int:
            began = time.perf_counter()
            given = next(steps)
            meter.waited += time.perf_counter() - began
            engine.train_step(given, meter.sums)
            meter.add_step(given)
            told(meter.steps)
            return given.micro_batches[0].global_rows

        rates = timed(step, plan, world.device, meter.restart)
        seconds = time.perf_counter() - meter.began
        tokens, operations = (each / meter.promoters * rates.middle for each in (meter.tokens, meter.operations))
        waited = meter.waited / seconds
        waits = host_waits(step, world.device)
        if asked.trace is not None:
            profile(step, asked.trace if world.is_rank0 else None)
    memory = peak_memory(world.device) / 1e9
    return Measured(
        asked.name, rates.middle, rates.slowest, rates.fastest, tokens, operations, matmul, waited, memory, waits
    )


@contextmanager
def _let_go(engine: Any) -> Iterator[None]:
    """Have an engine give its memory back at the end, which may be an error: the next measurement needs it."""
    try:
        yield
    finally:
        engine.destroy()


class _Counts:
    """In the meter's place: sums that stay on the device, and what is counted since the clock started."""

    def __init__(self, device: torch.device, cost: StageCost) -> None:
        self.steps = 0
        self._cost = cost
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.restart()

    def restart(self) -> None:
        """When the clock starts."""
        self.promoters, self.tokens, self.operations, self.waited = 0, 0.0, 0.0, 0.0
        self.began = time.perf_counter()

    def add_step(self, step: Step) -> None:
        """A step of all ranks."""
        batch = step.micro_batches[0]
        tokens, operations = self._cost.of(batch.global_lengths)
        self.steps += 1
        self.promoters += batch.global_rows
        self.tokens += tokens
        self.operations += operations


def full_steps(stream: Stream) -> Generator[Step]:
    """Steps of whole global batches, epoch after epoch. Raises UserError where the split holds none."""
    if stream.rows < stream.global_batch:
        raise UserError(
            f"{stream.split} holds {stream.rows:,} promoters, fewer than the {stream.global_batch:,} of a step; "
            "generate more: --rows"
        )
    for epoch in itertools.count():
        with closing(stream.epoch(epoch)) as steps:  # type: ignore[type-var]
            yield from (step for step in steps if step.micro_batches[0].global_rows == stream.global_batch)


def forget(device: torch.device) -> None:
    """Let go what the measurement before has left."""
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def as_line(found: Measured) -> str:
    """A row for a person."""
    return (
        f"{found.name}: {found.promoters_per_second:,.0f} promoters/s ({found.slowest:,.0f} to {found.fastest:,.0f}), "
        f"{found.tokens_per_second:,.0f} tokens/s, {found.operations_per_second / 1e12:,.3g} TFLOP/s, "
        f"{found.utilisation:.1%} of matmul ({found.matmul_per_second / 1e12:,.3g}), data wait {found.data_wait:.2%}, "
        f"{found.gigabytes:.1f} GB"
        + (f", {found.host_waits} host waits a step" if found.host_waits is not None else "")
    )
