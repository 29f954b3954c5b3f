"""One whole job on rows of one's own, stage by stage: what each takes, and how good the model is that comes out.

    python bench/real_run.py ROWS.parquet --test test_sequences.txt --labels LABELS --subsets FOLDER [--public FOLDER]
        --config configs/h200.yaml --deepspeed_config configs/ds_h200.json [--processes 8] [key=value ...]

ROWS is anything that `promoter-bert build` reads; LABELS, FOLDER are what `promoter-bert score` takes. All is made in
--work (default real_run/), with a log of each stage; costs.json there holds every number. Killed, it goes on with the
same command: stages that are through are not run again, and one that was started several times says so, as only its
last start is timed. Wall seconds; CPU seconds of all processes of the stage; peak memory of the largest.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from measure import markdown

ROOT = Path(__file__).resolve().parent.parent
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
    predictions = f"{work}/predictions.tsv"
    found = {
        "build": [command, "build", *map(str, args.rows), *config],
        "shards": [command, "shards", *config],
        "pretrain": [*train, "pretrain"],
        "fine-tune": [*train, "finetune"],
        "predict": [command, "predict", f"{work}/runs/real/model", str(args.test), "-o", predictions],
    }
    if args.labels:
        found["score"] = [command, "score", predictions, "--labels", str(args.labels), "--subsets", str(args.subsets)]
        found["score"] += ["--public", str(args.public)] if args.public else []
        found["score"] += ["--test", str(args.test)] if args.labels.suffix == ".json" else []
        found["score"] += ["--json"]
    return found


def run(name: str, command: list[str], work: Path, costs: dict[str, Any]) -> dict[str, Any]:
    """What a stage costs; one that is through is not run again."""
    path, known = work / "costs.json", costs.get(name, {})
    if known.get("command") == command and "wall" in known:
        return known
    starts = known.get("starts", 0) + 1 if known.get("command") == command else 1
    costs[name] = {"command": command, "starts": starts}
    path.write_text(json.dumps(costs, indent=1) + "\n")
    print(f"{name}: {' '.join(command)}", file=sys.stderr, flush=True)
    log = work / f"{name}.log"
    with log.open("wb") as out:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out)
        assert process.stdout is not None
        said = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
    if status:
        sys.exit(f"{name}: status {status}\n{said[-2000:]}{log.read_text(errors='replace')[-3000:]}")
    costs[name] |= {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "gigabytes": usage.ru_maxrss / 1e6}
    if command[-1] == "--json":
        costs[name]["said"] = json.loads(said)
    path.write_text(json.dumps(costs, indent=1) + "\n")
    return costs[name]


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
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "costs.json"
    costs: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found = {name: run(name, command, args.work, costs) for name, command in stages(args).items()}
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
