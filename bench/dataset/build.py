"""Measure the cost of `promoter-bert build`: against polars, pandas and plain SQL, by memory limit and by rows.

    python -m bench.dataset.build [--rows 6739258] [--times 3]
    python -m bench.dataset.build --growth 1,2,4,8,16 --plot docs/growth.svg

Needs 4 GB of disk at full size; `--growth` takes millions of rows.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from bench.measure import COMMAND, FULL, Cost, cost_of, markdown, medians, module, run

OURS = "promoter-bert (DuckDB file and Parquet)"
PEERS = {"polars": "polars, streaming", "pandas": "pandas", "full-sorts": "DuckDB, full sorts"}


def rows_file(folder: Path, rows: int) -> Path:
    """Generate a file of rows, unless it exists."""
    file = folder / f"{rows}.tsv"
    if not file.exists():
        run([COMMAND, "generate", str(file), "--rows", str(rows)])
    return file


def own_command(file: Path, work: Path, *options: str) -> list[str]:
    """Make the command that builds a file of rows in an empty folder."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    sizes = [] if file.stat().st_size > 3e8 else ["dataset.finetune_valid=0.02", "dataset.finetune_test=0.02"]
    return [COMMAND, "build", str(file), "--dataset", str(work / "d.duckdb"), *sizes, *options]


def compare_peers(file: Path, work: Path, times: int) -> None:
    """Print the costs of all contenders."""

    def peer_cost(peer: str) -> dict[str, float]:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return cost_of(module("dataset.build_contenders", peer, str(file), str(work / peer)))

    contenders = {OURS: lambda: cost_of(own_command(file, work))}
    contenders |= {f"{name} (Parquet)": partial(peer_cost, peer) for peer, name in PEERS.items()}
    costs = medians(contenders, times)
    rows = (
        [
            name,
            f"{cost['wall']:.1f}",
            f"{cost['cpu']:.1f}",
            f"{cost['gigabytes']:.2f}",
            f"{cost['cpu'] / costs[OURS]['cpu']:.2f}",
        ]
        for name, cost in costs.items()
    )
    print(markdown(["", "wall s", "CPU s", "peak GB", "CPU relative to ours"], rows), flush=True)


def compare_memory_limits(file: Path, work: Path) -> None:
    """Print cost and dataset key under several memory limits."""
    rows = []
    for limit in ("none", "1GB", "512MB"):
        cost = run(own_command(file, work, *([] if limit == "none" else ["--memory", limit])))
        query = [COMMAND, "query", "--json", "select key from dataset", "--dataset", str(work / "d.duckdb")]
        (dataset,) = json.loads(subprocess.run(query, check=True, capture_output=True).stdout)
        rows.append([limit, f"{cost.wall:.1f}", f"{cost.cpu:.1f}", f"{cost.gigabytes:.2f}", dataset["key"][:16]])
    print(markdown(["memory limit", "wall s", "CPU s", "peak GB", "dataset key"], rows), flush=True)


def measure_growth(folder: Path, work: Path, millions: list[int]) -> dict[int, Cost]:
    """Print and return the cost of a build by millions of rows."""
    print("| million rows | wall s | CPU us per row | peak GB | bytes per row |\n|--:|--:|--:|--:|--:|")
    costs = {}
    for million in millions:
        rows = million * 1_000_000
        file = rows_file(folder, rows)
        cost = costs[million] = run(own_command(file, work))
        size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        numbers = f"{cost.wall:.1f} | {1e6 * cost.cpu / rows:.2f} | {cost.gigabytes:.2f} | {size / rows:.0f}"
        print(f"| {million} | {numbers} |", flush=True)
        file.unlink()
    return costs


def plot_growth(costs: dict[int, Cost], file: Path) -> None:
    """Plot CPU time and peak memory against rows."""
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


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=FULL)
    cli.add_argument("--times", type=int, default=3)
    cli.add_argument("--growth", default="", help="millions of rows, such as 1,2,4,8,16")
    cli.add_argument("--plot", type=Path, help="SVG file for a plot of the growth")
    args = cli.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder, work = Path(name), Path(name) / "work"
        if args.growth:
            costs = measure_growth(folder, work, [int(text) for text in args.growth.split(",")])
            if args.plot:
                plot_growth(costs, args.plot)
            return
        file = rows_file(folder, args.rows)
        compare_peers(file, work, args.times)
        compare_memory_limits(file, work)


if __name__ == "__main__":
    main()
