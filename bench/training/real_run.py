"""Cost of a whole job on your own rows, stage by stage, and the scores of the model.

    python -m bench.training.real_run ROWS.parquet --test test_sequences.txt --labels LABELS --subsets FOLDER
        --config configs/h200.yaml --deepspeed_config configs/ds_h200.json [--processes 8] [key=value ...]

ROWS is any file that `promoter-bert build` reads; LABELS and FOLDER are those of `promoter-bert score`. All output goes
to --work (default real_run/), with one log per stage; its costs.json holds all numbers. After an interruption, run
the same command to resume: finished stages are not repeated. A stage that was started several times is marked, because
only its last start is timed. A training is timed once; other settings need another --work. Costs: wall seconds; CPU
seconds of all processes of the stage; peak memory in GB of the largest process.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import markdown, run_command
from model.config import load_config
from pipeline.errors import UserError
from pipeline.paths import ROOT

BIN = Path(sys.executable).parent
TRAINING_STAGES = ("pretrain", "fine-tune")


def stages(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the commands in order: stage -> arguments of its command."""
    work = args.work
    paths = [f"dataset.path={work}/dataset.duckdb", f"shards.path={work}/shards", f"run.path={work}/runs"]
    config = ["--config", str(args.config), *paths, "run.name=real", *args.overrides]
    command = str(BIN / "promoter-bert")
    launch = [sys.executable]
    if args.processes > 1:
        launch = [str(BIN / "deepspeed"), "--num_accelerators", str(args.processes)]
    train = [*launch, str(ROOT / "train.py"), "--deepspeed_config", str(args.deepspeed_config), *config, "--stage"]
    training = {"pretrain": [*train, "pretrain"], "fine-tune": [*train, "finetune"]}
    if not load_config(args.config, args.overrides).finetune.uses_own_pretraining:
        del training["pretrain"]
    predictions = f"{work}/predictions.tsv"
    commands = {
        "build": [command, "build", *map(str, args.rows), *config],
        "shards": [command, "shards", *config],
        **training,
        "predict": [command, "predict", f"{work}/runs/real/model", str(args.test), "-o", predictions],
    }
    if args.labels:
        commands["score"] = [
            command,
            "score",
            predictions,
            "--labels",
            str(args.labels),
            "--subsets",
            str(args.subsets),
        ]
        commands["score"] += ["--public", str(args.public)] if args.public else []
        commands["score"] += ["--test", str(args.test)] if args.labels.suffix == ".json" else []
        commands["score"] += ["--json"]
    return commands


def check_resumable(commands: dict[str, list[str]], costs: dict[str, Any], work: Path) -> None:
    """Exit if a training that these commands should time is already finished."""
    trainings = [name for name in TRAINING_STAGES if name in commands]
    finished = [name for name in trainings if "wall" in costs.get(name, {})]
    earlier = list(commands)[: list(commands).index(finished[-1]) + 1] if finished else []
    for name in earlier:
        if costs.get(name, {}).get("command") != commands[name] or "wall" not in costs[name]:
            sys.exit(
                f"{work}: {finished[-1]} is already finished, after another {name}; fix: another folder, --work NAME"
            )
    if (work / "runs" / "real").exists() and not any(name in costs for name in trainings):
        sys.exit(f"{work}/runs/real: run is not recorded in {work}/costs.json; fix: another folder, --work NAME")


def run(name: str, commands: dict[str, list[str]], work: Path, costs: dict[str, Any]) -> None:
    """Run a stage and record its cost, unless it is finished. All later stages then run again."""
    path, cost, command = work / "costs.json", costs.get(name, {}), commands[name]
    if cost.get("command") == command and "wall" in cost:
        return
    # A killed training resumes from its checkpoint, even with other settings.
    resumed = cost and "wall" not in cost and (cost["command"] == command or name in TRAINING_STAGES)
    costs[name] = {"command": command, "starts": cost["starts"] + 1 if resumed else 1}
    for later in list(commands)[list(commands).index(name) + 1 :]:
        if "wall" in costs.get(later, {}):
            del costs[later]
    path.write_text(json.dumps(costs, indent=1) + "\n")
    print(f"{name}: {' '.join(command)}", file=sys.stderr, flush=True)
    output, measured_cost = run_command(command, log=work / f"{name}.log")
    costs[name] |= asdict(measured_cost)
    if command[-1] == "--json":
        costs[name]["said"] = json.loads(output)
    path.write_text(json.dumps(costs, indent=1) + "\n")


def speed(folder: Path, stage: str) -> dict[str, float]:
    """Compute the medians of the step lines of a stage; empty if it has none."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["stage"] == stage and "promoters_per_second" in line]
    names = ("promoters_per_second", "flop_utilisation", "data_wait", "memory_gigabytes")
    return {name: median(line[name] for line in lines) for name in names} if lines else {}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("rows", nargs="+", help="files of rows, and key=value settings")
    cli.add_argument("--test", type=Path, required=True, help="promoters to predict")
    cli.add_argument("--labels", type=Path, help="labels of these promoters; default: no score")
    cli.add_argument("--subsets", type=Path, help="folder of subset files, as for promoter-bert score")
    cli.add_argument("--public", type=Path, help="folder public_leaderboard_ids: rows to exclude; default: none")
    cli.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    cli.add_argument("--deepspeed_config", type=Path, default=ROOT / "ds_config.json")
    cli.add_argument("--processes", type=int, default=1, help="ranks of each training; default: 1")
    cli.add_argument("--work", type=Path, default=Path("real_run"), help="default: real_run")
    cli.add_argument("--json", action="store_true", help="print all numbers as JSON")
    args = cli.parse_intermixed_args()
    args.overrides = [argument for argument in args.rows if "=" in argument]
    args.rows = [argument for argument in args.rows if "=" not in argument]
    if not args.rows or (args.labels and not args.subsets):
        cli.error("expected files of rows, and --subsets beside --labels")
    try:
        commands = stages(args)
    except UserError as error:
        cli.error(str(error))
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "costs.json"
    costs: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    check_resumable(commands, costs, args.work)
    for name in commands:
        run(name, commands, args.work, costs)
    stage_costs = {name: costs[name] for name in commands}
    folder = args.work / "runs" / "real"
    summary = json.loads((folder / "summary.json").read_text())
    speeds = {name: speed(folder, name.replace("-", "")) for name in TRAINING_STAGES}
    result = {"stages": stage_costs, "speeds": speeds, "scores": summary["scores"], "training": summary["training"]}
    print(json.dumps(result) if args.json else tables(result))


def tables(result: dict[str, Any]) -> str:
    """Format the result as Markdown tables."""
    rows = []
    for name, cost in result["stages"].items():
        rate = [""] * 3
        if medians := result["speeds"].get(name):
            rate = [
                f"{medians['promoters_per_second']:,.0f}",
                f"{medians['flop_utilisation']:.1%}",
                f"{medians['data_wait']:.2%}",
            ]
        rows.append([
            name + (f" (start {cost['starts']})" if cost["starts"] > 1 else ""),
            f"{cost['wall']:.1f}", f"{cost['cpu']:.1f}", f"{cost['gigabytes']:.2f}", *rate,
        ])  # fmt: skip
    whole = [f"{sum(cost[name] for cost in result['stages'].values()):.1f}" for name in ("wall", "cpu")]
    rows.append(["all", *whole, "", "", "", ""])
    head = ["", "wall s", "CPU s", "peak GB", "promoters/s", "of matmul", "data wait"]
    scores = [
        f"{split}: Pearson {score['pearson']:.4f}, Spearman {score['spearman']:.4f}, {score['rows']:,} promoters"
        for split, score in result["scores"].items()
    ]
    score = result["stages"].get("score", {}).get("said", {})
    subsets = [
        [name, f"{part['rows']:,}", f"{part['pearson']:.4f}", f"{part['spearman']:.4f}"]
        for name, part in score.get("subsets", {}).items()
    ]
    if score.get("pearson_score") is not None:
        subsets.append(["score", "", f"{score['pearson_score']:.4f}", f"{score['spearman_score']:.4f}"])
    parts = [markdown(head, rows), "\n".join(scores)]
    return "\n\n".join([*parts, *([markdown(["subset", "rows", "Pearson", "Spearman"], subsets)] if subsets else [])])


if __name__ == "__main__":
    main()
