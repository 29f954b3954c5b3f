"""Cost per step from a text file to verified shards of both stages, then of shards of another k.

    python -m bench.shards.end_to_end [--rows 6739258] [--times 3]

Needs 12 GB of disk at full size.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from bench.measure import COMMAND, FULL, cost_of, markdown, medians, run


def steps(file: Path, work: Path, rows: int) -> dict[str, list[str]]:
    """Return the commands in order: step -> arguments of promoter-bert."""
    sizes = [] if rows >= FULL // 2 else ["dataset.finetune_valid=0.02", "dataset.finetune_test=0.02"]
    dataset, shards = ["--dataset", str(work / "dataset.duckdb")], ["--out", str(work / "shards")]
    return {
        "build": ["build", str(file), *dataset, *sizes],
        "shards, k = 3": ["shards", *dataset, *shards],
        "shards, k = 3, again": ["shards", *dataset, *shards],
        "verify": ["verify", str(work / "shards/k3")],
        "shards, k = 4": ["shards", "--k", "4", *dataset, *shards],
    }


def measure_step(step: str, arguments: list[str], work: Path) -> dict[str, float]:
    if step == "build":  # the first step of a repetition
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
    return cost_of([COMMAND, *arguments])


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=FULL, help=f"promoters; default: {FULL}")
    cli.add_argument("--times", type=int, default=3, help="repetitions; default: 3")
    args = cli.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        file, work = Path(name) / "rows.tsv", Path(name) / "work"
        run([COMMAND, "generate", str(file), "--rows", str(args.rows)])
        commands = steps(file, work, args.rows)
        each = {
            step: lambda step=step, arguments=arguments: measure_step(step, arguments, work)
            for step, arguments in commands.items()
        }
        results = medians(each, args.times)
    lines = ([step, f"{n['wall']:.1f}", f"{n['cpu']:.1f}", f"{n['gigabytes']:.2f}"] for step, n in results.items())
    print(markdown(["", "wall s", "CPU s", "peak GB of the largest process"], lines))


if __name__ == "__main__":
    main()
