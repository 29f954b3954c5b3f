"""What `promoter-bert build` costs beside polars, pandas and plain SQL; under memory limits; by size.

    python -m bench.dataset.build [--rows 6739258] [--times 3]
    python -m bench.dataset.build --growth 1,2,4,8,16 --plot docs/growth.svg

Needs 4 GB of disk at full size; `--growth` takes millions of rows.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.measure import COMMAND, Cost, compare, module, run, table

FULL = 6_739_258


def rows_of(folder: Path, rows: int) -> Path:
    file = folder / f"{rows}.tsv"
    if not file.exists():
        subprocess.run([COMMAND, "generate", str(file), "--rows", str(rows)], check=True, capture_output=True)
    return file


def ours(file: Path, target: Path, *options: str) -> list[str]:
    sizes = [] if file.stat().st_size > 3e8 else ["dataset.finetune_valid=0.02", "dataset.finetune_test=0.02"]
    return [COMMAND, "build", str(file), "--dataset", str(target / "d.duckdb"), *sizes, *options]


def beside_peers(file: Path, work: Path, times: int) -> None:
    commands = {"promoter-bert (DuckDB file and Parquet)": ours(file, work)}
    for peer in ("polars", "pandas", "full-sorts"):
        name = {"polars": "polars, streaming", "full-sorts": "DuckDB, full sorts"}.get(peer, peer)
        commands[f"{name} (Parquet)"] = module("dataset.build_contenders", peer, str(file), str(work / peer))
    print(table(compare(commands, times, lambda: clean(work)), next(iter(commands))), flush=True)


def under_memory_limits(file: Path, work: Path) -> None:
    print("| memory limit | wall s | CPU s | peak GB | dataset key |\n|---|--:|--:|--:|---|")
    for limit in ("none", "1GB", "512MB"):
        clean(work)
        cost = run(ours(file, work, *([] if limit == "none" else ["--memory", limit])))
        query = [COMMAND, "query", "--json", "select key from dataset", "--dataset", str(work / "d.duckdb")]
        (row,) = json.loads(subprocess.run(query, check=True, capture_output=True).stdout)
        print(f"| {limit} | {cost.wall:.1f} | {cost.cpu:.1f} | {cost.gigabytes:.2f} | {row['key'][:16]} |", flush=True)


def growth(folder: Path, work: Path, millions: list[int]) -> dict[int, Cost]:
    print("| million rows | wall s | CPU us a row | peak GB | bytes a row |\n|--:|--:|--:|--:|--:|")
    costs = {}
    for million in millions:
        clean(work)
        rows = million * 1_000_000
        file = rows_of(folder, rows)
        cost = costs[million] = run(ours(file, work))
        size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        numbers = f"{cost.wall:.1f} | {1e6 * cost.cpu / rows:.2f} | {cost.gigabytes:.2f} | {size / rows:.0f}"
        print(f"| {million} | {numbers} |", flush=True)
        file.unlink()
    return costs


def draw(costs: dict[int, Cost], file: Path) -> None:
    """CPU time and peak memory against rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = list(costs)
    left.plot(rows, [cost.cpu for cost in costs.values()], "o-", color="#0072b2")
    right.plot(rows, [cost.gigabytes for cost in costs.values()], "o-", color="#d55e00")
    for axes, label in ((left, "CPU seconds"), (right, "peak memory (GB)")):
        axes.set(xlabel="million rows", ylabel=label, ylim=(0, None), xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def clean(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=FULL)
    cli.add_argument("--times", type=int, default=3)
    cli.add_argument("--growth", default="", help="millions of rows, such as 1,2,4,8,16")
    cli.add_argument("--plot", type=Path, help="SVG file for a picture of the growth")
    args = cli.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder, work = Path(name), Path(name) / "work"
        if args.growth:
            costs = growth(folder, work, [int(text) for text in args.growth.split(",")])
            if args.plot:
                draw(costs, args.plot)
            return
        file = rows_of(folder, args.rows)
        beside_peers(file, work, args.times)
        under_memory_limits(file, work)


if __name__ == "__main__":
    main()
