"""Effect of large batches: validation scores after equal numbers of training promoters.

    python -m bench.training.large_batch ROWS --batches 4096 4096:6.4e-3 --epochs 2 --seeds 0 1 2 [key=value ...]

One training per seed and batch size: first the batch size and learning rate of the config, then each of --batches by
the rule of configs/h200.yaml: the learning rate grows with the square root of the batch size, and is warmed up over the
first part of an epoch. BATCH:RATE sets another learning rate of fine-tuning. All other settings are those of the
config.

Fine-tuning starts from scratch; with --pretrain, both stages run. ROWS is a file that `promoter-bert build` reads. All
output goes to --work (default large_batch/); finished steps are not repeated. The default model is that of
bench/quality/quality.yaml, for CPUs; on a GPU: --config config.yaml --deepspeed_config configs/ds_h200.json. All
numbers are written to large_batch.json in --work.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from bench.measure import COMMAND, markdown
from bench.parallel import TRAIN, run_parallel, run_single_threaded
from model.config import Config, StageName, load_config
from pipeline.paths import ROOT
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder

WARM_UP = {"pretrain": 0.25, "finetune": 0.31}
"""Stage -> warm-up as a share of an epoch, as in configs/h200.yaml for the rows of the DREAM Challenge."""
METRIC = {"pretrain": "valid_accuracy", "finetune": "valid_pearson"}


@dataclass(frozen=True)
class Contender:
    """Batch size and learning rate. batch: None for that of the config; rate: of fine-tuning, None for the rule."""

    batch: int | None
    rate: float | None = None

    @classmethod
    def of(cls, text: str) -> "Contender":
        """Parse 4096, or 4096:6.4e-3."""
        batch, _, rate = text.partition(":")
        return cls(int(batch), float(rate) if rate else None)

    def settings(self, config: Config, rows: Mapping[str, int]) -> list[str]:
        """Return the overrides of both stages. rows: stage -> promoters of its training split."""
        if self.batch is None:
            return []
        settings = []
        for stage, each in (("pretrain", config.pretrain), ("finetune", config.finetune)):
            by_rule = each.learning_rate * sqrt(self.batch / each.global_batch)
            rate = self.rate if stage == "finetune" and self.rate else by_rule
            warm_up = round(WARM_UP[stage] * rows[stage] / self.batch)
            settings += [f"{stage}.global_batch={self.batch}", f"{stage}.learning_rate={rate:.3e}"]
            settings.append(f"{stage}.warm_up={warm_up}")
        return settings

    @property
    def name(self) -> str:
        """Return the name of the contender's column."""
        own = "own" if self.batch is None else str(self.batch)
        return own if self.rate is None else f"{own}-{self.rate:g}"


def curve(run: Path, stage: str, rows: int) -> dict[int, float]:
    """Read the validation metric of a stage: training promoters so far -> value."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["stage"] == stage and METRIC[stage] in line]
    return {round(line["epoch"] * rows): line[METRIC[stage]] for line in lines}


def interpolate(points: Mapping[int, float], promoters: float) -> float:
    """Interpolate a curve linearly at a number of training promoters."""
    return float(np.interp(promoters, sorted(points), [points[place] for place in sorted(points)]))


def table_rows(curves: Mapping[str, list[dict[int, float]]], promoters: list[int]) -> list[list[str]]:
    """Make one row per number of training promoters: mean and standard deviation over seeds per contender."""
    rows = []
    for number in promoters:
        values = {name: [interpolate(points, number) for points in each] for name, each in curves.items()}
        rows.append([f"{number:,}", *(mean_and_deviation(each) for each in values.values())])
    return rows


def mean_and_deviation(values: list[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("rows", help="file of rows")
    cli.add_argument("overrides", nargs="*", metavar="key=value")
    cli.add_argument("--batches", type=Contender.of, nargs="+", default=[Contender(4096)], metavar="BATCH[:RATE]")
    cli.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    cli.add_argument("--epochs", type=float, default=2, help="epochs per stage; default: 2")
    cli.add_argument("--every", type=float, default=0.1, help="epochs between evaluations; default: 0.1")
    cli.add_argument("--pretrain", action="store_true", help="pretrain first, with the same batch sizes")
    cli.add_argument("--config", type=Path, default=ROOT / "bench/quality/quality.yaml")
    cli.add_argument("--deepspeed_config", type=Path, default=ROOT / "ds_config.json")
    cli.add_argument("--work", type=Path, default=Path("large_batch"))
    cli.add_argument("--jobs", type=int, default=1, help="parallel trainings, one thread each; default: 1")
    args = cli.parse_intermixed_args()
    paths = [f"dataset.path={args.work}/dataset.duckdb", f"shards.path={args.work}/shards"]
    settings = [*paths, f"run.path={args.work}/runs", *args.overrides]
    args.work.mkdir(parents=True, exist_ok=True)
    run_single_threaded([COMMAND, "build", args.rows, "--config", str(args.config), *settings])
    run_single_threaded([COMMAND, "shards", "--config", str(args.config), *settings])
    config = load_config(args.config, settings)
    index = read_index(shard_folder(config))
    stages: list[StageName] = ["pretrain", "finetune"] if args.pretrain else ["finetune"]
    rows = {stage: index.rows(f"{stage}/train") for stage in ("pretrain", "finetune")}
    length = [
        setting
        for stage in stages
        for setting in (f"{stage}.max_epochs={args.epochs}", f"{stage}.evaluate_every={args.every}",
                        f"{stage}.early_stop=1000000")
    ]  # fmt: skip
    start = [] if args.pretrain else ["finetune.start=scratch"]
    contenders = [Contender(None), *args.batches]

    def train(contender: Contender, seed: int) -> Path:
        name = f"{contender.name}-{seed}"
        command = [sys.executable, TRAIN, "--config", str(args.config)]
        command += ["--deepspeed_config", str(args.deepspeed_config), *settings, *length, *start]
        run_single_threaded([*command, *contender.settings(config, rows), f"run.name={name}", f"run.seed={seed}"])
        print(f"{name}: done", file=sys.stderr, flush=True)
        return config.run.directory.parent / name

    tasks = {
        f"{contender.name}-{seed}": partial(train, contender, seed) for seed in args.seeds for contender in contenders
    }
    runs = run_parallel(args.jobs, tasks)
    tables = []
    records: list[dict[str, Any]] = []
    for stage in stages:
        curves = {
            contender.name: [curve(runs[f"{contender.name}-{seed}"], stage, rows[stage]) for seed in args.seeds]
            for contender in contenders
        }
        # The evaluations of the contender with the fewest steps; the others were evaluated near each of them.
        promoters = sorted(min(curves.values(), key=lambda each: len(each[0]))[0])
        own = config.stage(stage).global_batch
        head = ["training promoters", *(f"batch {own if each.batch is None else each.name}" for each in contenders)]
        tables.append(f"{stage}, {METRIC[stage]}\n\n{markdown(head, table_rows(curves, promoters))}")
        records += [
            {"stage": stage, "batch": each.batch or own, "seed": seed, "settings": each.settings(config, rows),
             "curve": curves[each.name][place]}
            for each in contenders for place, seed in enumerate(args.seeds)
        ]  # fmt: skip
    (args.work / "large_batch.json").write_text(json.dumps(records) + "\n")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
