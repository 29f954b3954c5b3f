"""One whole job on rows of one's own, stage by stage: what each takes, and how good the model is that comes out.

    python -m bench.training.real_run ROWS.parquet --test test_sequences.txt --labels LABELS --subsets FOLDER [--public FOLDER]
        --config configs/h200.yaml --deepspeed_config configs/ds_h200.json [--processes 8] [key=value ...]

ROWS is anything that `promoter-bert build` reads; LABELS, FOLDER are what `promoter-bert score` takes. All is made in
--work (default real_run/), with a log of each stage; costs.json there holds every number. Killed, it goes on with the
same command: stages that are through are not run again, and one that was started several times says so, as only its
last start is timed. What is trained there is timed once: other settings take another --work. Wall seconds; CPU seconds
of all processes of the stage; peak memory of the largest.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import ended, markdown

from model.config import load_config
from pipeline.errors import UserError
from pipeline.paths import ROOT

BIN = Path(sys.executable).parent
TRAINED = ("pretrain", "fine-tune")


def stages(args: argparse.Namespace) -> dict[str, list[str]]:
    """The commands in turn, each one as a user types it."""
    work = args.work
    places = [f"dataset.path={work}/dataset.duckdb", f"shards.path={work}/shards", f"run.path={work}/runs"]
    config = ["--config", str(args.config), *places, "run.name=real", *args.overrides]
    command = str(BIN / "promoter-bert")
    launch = [sys.executable]
    if args.processes > 1:
        launch = [str(BIN / "deepspeed"), "--num_accelerators", str(args.processes)]
    train = [*launch, str(ROOT / "train.py"), "--deepspeed_config", str(args.deepspeed_config), *config, "--stage"]
    trained = {"pretrain": [*train, "pretrain"], "fine-tune": [*train, "finetune"]}
    if not load_config(args.config, args.overrides).finetune.wants_pretraining:
        del trained["pretrain"]
    predictions = f"{work}/predictions.tsv"
    found = {
        "build": [command, "build", *map(str, args.rows), *config],
        "shards": [command, "shards", *config],
        **trained,
        "predict": [command, "predict", f"{work}/runs/real/model", str(args.test), "-o", predictions],
    }
    if args.labels:
        found["score"] = [command, "score", predictions, "--labels", str(args.labels), "--subsets", str(args.subsets)]
        found["score"] += ["--public", str(args.public)] if args.public else []
        found["score"] += ["--test", str(args.test)] if args.labels.suffix == ".json" else []
        found["score"] += ["--json"]
    return found


def check_begun(commands: dict[str, list[str]], costs: dict[str, Any], work: Path) -> None:
    """End where train.py would take for finished what these commands are to be timed with."""
    trained = [name for name in TRAINED if name in commands]
    through = [name for name in trained if "wall" in costs.get(name, {})]
    before = list(commands)[: list(commands).index(through[-1]) + 1] if through else []
    for name in before:
        if costs.get(name, {}).get("command") != commands[name] or "wall" not in costs[name]:
            sys.exit(f"{work}: {through[-1]} is through there, after another {name}; name another folder: --work")
    if (work / "runs" / "real").exists() and not any(name in costs for name in trained):
        sys.exit(f"{work}/runs/real: a run that {work}/costs.json knows nothing of; name another folder: --work")


def run(name: str, commands: dict[str, list[str]], work: Path, costs: dict[str, Any]) -> None:
    """A stage and what it costs; one that is through is not run again. Those after it were of what it makes anew."""
    path, known, command = work / "costs.json", costs.get(name, {}), commands[name]
    if known.get("command") == command and "wall" in known:
        return
    # A training that was ended goes on from its checkpoint, with other settings, too.
    begun = known and "wall" not in known and (known["command"] == command or name in TRAINED)
    costs[name] = {"command": command, "starts": known["starts"] + 1 if begun else 1}
    for later in list(commands)[list(commands).index(name) + 1 :]:
        if "wall" in costs.get(later, {}):
            del costs[later]
    path.write_text(json.dumps(costs, indent=1) + "\n")
    print(f"{name}: {' '.join(command)}", file=sys.stderr, flush=True)
    said, cost = ended(command, log=work / f"{name}.log")
    costs[name] |= asdict(cost)
    if command[-1] == "--json":
        costs[name]["said"] = json.loads(said)
    path.write_text(json.dumps(costs, indent=1) + "\n")


def speed(folder: Path, stage: str) -> dict[str, float]:
    """Medians of what a stage's step lines say; empty where it has none."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["stage"] == stage and "promoters_per_second" in line]
    names = ("promoters_per_second", "flop_utilisation", "data_wait", "memory_gigabytes")
    return {name: median(line[name] for line in lines) for name in names} if lines else {}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("rows", nargs="+", help="files of rows, and key=value settings")
    cli.add_argument("--test", type=Path, required=True, help="promoters to predict")
    cli.add_argument("--labels", type=Path, help="their labels; default: they are not scored")
    cli.add_argument("--subsets", type=Path)
    cli.add_argument("--public", type=Path)
    cli.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    cli.add_argument("--deepspeed_config", type=Path, default=ROOT / "ds_config.json")
    cli.add_argument("--processes", type=int, default=1, help="ranks of the training; default: 1")
    cli.add_argument("--work", type=Path, default=Path("real_run"), help="default: real_run")
    cli.add_argument("--json", action="store_true", help="print all numbers as JSON")
    args = cli.parse_intermixed_args()
    args.overrides = [word for word in args.rows if "=" in word]
    args.rows = [word for word in args.rows if "=" not in word]
    if not args.rows or (args.labels and not args.subsets):
        cli.error("expected files of rows, and --subsets beside --labels")
    try:
        commands = stages(args)
    except UserError as error:
        cli.error(str(error))
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "costs.json"
    costs: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    check_begun(commands, costs, args.work)
    for name in commands:
        run(name, commands, args.work, costs)
    found = {name: costs[name] for name in commands}
    folder = args.work / "runs" / "real"
    summary = json.loads((folder / "summary.json").read_text())
    speeds = {name: speed(folder, name.replace("-", "")) for name in TRAINED}
    result = {"stages": found, "speeds": speeds, "scores": summary["scores"], "training": summary["training"]}
    print(json.dumps(result) if args.json else described(result))


def described(result: dict[str, Any]) -> str:
    """Tables for a person."""
    rows = []
    for name, cost in result["stages"].items():
        rate = [""] * 3
        if at := result["speeds"].get(name):
            rate = [f"{at['promoters_per_second']:,.0f}", f"{at['flop_utilisation']:.1%}", f"{at['data_wait']:.2%}"]
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
    said = result["stages"].get("score", {}).get("said", {})
    subsets = [
        [name, f"{part['rows']:,}", f"{part['pearson']:.4f}", f"{part['spearman']:.4f}"]
        for name, part in said.get("subsets", {}).items()
    ]
    if said.get("pearson_score") is not None:
        subsets.append(["score", "", f"{said['pearson_score']:.4f}", f"{said['spearman_score']:.4f}"])
    told = [markdown(head, rows), "\n".join(scores)]
    return "\n\n".join([*told, *([markdown(["subset", "rows", "Pearson", "Spearman"], subsets)] if subsets else [])])


if __name__ == "__main__":
    main()
