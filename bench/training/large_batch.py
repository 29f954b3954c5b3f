"""Do large batches learn as much from each promoter? Validation scores at equal numbers of promoters seen.

    python -m bench.training.large_batch ROWS --batches 4096 4096:6.4e-3 --epochs 2 --seeds 0 1 2 [--config FILE] [key=value ...]

One training for each seed and batch: the config's own batch and learning rate first, then each of --batches by the rule
of configs/h200.yaml: the rate grown with the square root of the batch (of fine-tuning: or as it stands behind the
colon), and warmed up over the first part of an epoch.
All else is the config's, the plateau too. Fine-tuning from scratch; with --pretrain both stages. ROWS is what
`promoter-bert build` reads, and all is made in --work (default large_batch/), where what is done already is not done
again. The default model is that of bench/quality/quality.yaml, for CPUs; on a GPU: --config config.yaml --deepspeed_config
configs/ds_h200.json. Every number: large_batch.json in --work.
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

from bench.measure import COMMAND, markdown
from bench.trainings import TRAIN, at_a_time, call

from model.config import Config, load_config
from pipeline.paths import ROOT
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder

WARM_UP = {"pretrain": 0.25, "finetune": 0.31}
"""Part of an epoch: that of the steps in configs/h200.yaml on the challenge's rows."""
METRIC = {"pretrain": "valid_accuracy", "finetune": "valid_pearson"}


@dataclass(frozen=True)
class Form:
    """A batch and what goes with it. batch: None for the config's own; rate: of fine-tuning, None for the rule's."""

    batch: int | None
    rate: float | None = None

    @classmethod
    def of(cls, text: str) -> "Form":
        """4096, or 4096:6.4e-3."""
        batch, _, rate = text.partition(":")
        return cls(int(batch), float(rate) if rate else None)

    def settings(self, config: Config, rows: Mapping[str, int]) -> list[str]:
        """Of both stages. rows: of each training split."""
        if self.batch is None:
            return []
        found = []
        for stage, each in (("pretrain", config.pretrain), ("finetune", config.finetune)):
            by_rule = each.learning_rate * sqrt(self.batch / each.global_batch)
            rate = self.rate if stage == "finetune" and self.rate else by_rule
            warm_up = round(WARM_UP[stage] * rows[stage] / self.batch)
            found += [f"{stage}.global_batch={self.batch}", f"{stage}.learning_rate={rate:.3e}"]
            found.append(f"{stage}.warm_up={warm_up}")
        return found

    @property
    def name(self) -> str:
        """Of its column."""
        own = "own" if self.batch is None else str(self.batch)
        return own if self.rate is None else f"{own}-{self.rate:g}"


def curve(run: Path, stage: str, rows: int) -> dict[int, float]:
    """A stage's validation metric by promoters seen."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["stage"] == stage and METRIC[stage] in line]
    return {round(line["epoch"] * rows): line[METRIC[stage]] for line in found}


def at(points: Mapping[int, float], seen: float) -> float:
    """A curve where so many promoters have been seen, on a straight line between its points."""
    (before, low), (behind, high) = (
        max((point for point in points.items() if point[0] <= seen), default=min(points.items())),
        min((point for point in points.items() if point[0] >= seen), default=max(points.items())),
    )
    return low if before == behind else low + (high - low) * (seen - before) / (behind - before)


def told(curves: Mapping[str, list[dict[int, float]]], seen: list[int]) -> list[list[str]]:
    """A row for each number of promoters: mean and spread over the seeds of each form."""
    rows = []
    for number in seen:
        values = {name: [at(points, number) for points in each] for name, each in curves.items()}
        rows.append([f"{number:,}", *(spread(each) for each in values.values())])
    return rows


def spread(values: list[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("rows", help="file of rows")
    cli.add_argument("overrides", nargs="*", metavar="key=value")
    cli.add_argument("--batches", type=Form.of, nargs="+", default=[Form(4096)], metavar="BATCH[:RATE]")
    cli.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    cli.add_argument("--epochs", type=float, default=2)
    cli.add_argument("--every", type=float, default=0.1, help="part of an epoch between two evaluations; default: 0.1")
    cli.add_argument("--pretrain", action="store_true", help="pretrain, too, in the same batches")
    cli.add_argument("--config", type=Path, default=ROOT / "bench/quality/quality.yaml")
    cli.add_argument("--deepspeed_config", type=Path, default=ROOT / "ds_config.json")
    cli.add_argument("--work", type=Path, default=Path("large_batch"))
    cli.add_argument("--jobs", type=int, default=1, help="trainings at a time, a thread each; default: 1")
    args = cli.parse_intermixed_args()
    places = [f"dataset.path={args.work}/dataset.duckdb", f"shards.path={args.work}/shards"]
    settings = [*places, f"run.path={args.work}/runs", *args.overrides]
    args.work.mkdir(parents=True, exist_ok=True)
    call([COMMAND, "build", args.rows, "--config", str(args.config), *settings])
    call([COMMAND, "shards", "--config", str(args.config), *settings])
    config = load_config(args.config, settings)
    index = read_index(shard_folder(config))
    stages = ["pretrain", "finetune"] if args.pretrain else ["finetune"]
    rows = {stage: index.rows(f"{stage}/train") for stage in ("pretrain", "finetune")}
    length = [
        setting
        for stage in stages
        for setting in (f"{stage}.max_epochs={args.epochs}", f"{stage}.evaluate_every={args.every}",
                        f"{stage}.early_stop=1000000")
    ]  # fmt: skip
    start = [] if args.pretrain else ["finetune.start=scratch"]
    forms = [Form(None), *args.batches]

    def train(form: Form, seed: int) -> Path:
        name = f"{form.name}-{seed}"
        command = [sys.executable, TRAIN, "--config", str(args.config)]
        command += ["--deepspeed_config", str(args.deepspeed_config), *settings, *length, *start]
        call([*command, *form.settings(config, rows), f"run.name={name}", f"run.seed={seed}"])
        print(f"{name}: done", file=sys.stderr, flush=True)
        return config.run.directory.parent / name

    tasks = {f"{form.name}-{seed}": partial(train, form, seed) for seed in args.seeds for form in forms}
    done = at_a_time(args.jobs, tasks)
    tables = []
    everything: list[dict[str, Any]] = []
    for stage in stages:
        curves = {
            form.name: [curve(done[f"{form.name}-{seed}"], stage, rows[stage]) for seed in args.seeds] for form in forms
        }
        # Where the form with the fewest steps was evaluated: all were, or nearly.
        seen = sorted(min(curves.values(), key=lambda each: len(each[0]))[0])
        own = config.stage(stage).global_batch
        head = ["promoters seen", *(f"batch {own if form.batch is None else form.name}" for form in forms)]
        tables.append(f"{stage}, {METRIC[stage]}\n\n{markdown(head, told(curves, seen))}")
        everything += [
            {"stage": stage, "batch": form.batch or own, "seed": seed, "settings": form.settings(config, rows),
             "curve": curves[form.name][place]}
            for form in forms for place, seed in enumerate(args.seeds)
        ]  # fmt: skip
    (args.work / "large_batch.json").write_text(json.dumps(everything) + "\n")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
