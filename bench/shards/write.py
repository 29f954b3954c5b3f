"""Rate of writing shards, with 1 and 2 processes, beside webdataset, mosaicml-streaming, litdata and Hugging Face.

    python -m bench.shards.write [--rows 1000000] [--times 3]

Every writer gets the same arrays in memory: 411 uint8 ids per sample, a label and a dataset id. Slow ones get 1/4 to
1/40 of the rows. "ready records" is the project's write_tar with its hashes. "the command" is all of `promoter-bert
shards`: Python's start, reading DuckDB, the ids, the hashes and flushing to the disk. The peers hash and flush nothing.
Needs 3 GB of disk and 2 GB of memory at 1,000,000 rows.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.measure import COMMAND, STUBS, markdown, medians, module, run, run_json
from bench.promoters import ids, promoters, write_tsv

INSERT, K = 111, 3
OURS = "promoter-bert, ready records"
CONTENDERS = {  # name in write_contenders.py, and the divisor of its rows
    OURS: ("packed", 1),
    f"{OURS}, zstd": ("packed-zstd", 1),
    "webdataset, one sample per record (.npy, .json)": ("webdataset-npy", 40),
    "webdataset, one sample per record (raw bytes)": ("webdataset-bytes", 40),
    "mosaicml-streaming MDSWriter": ("mds", 8),
    "litdata optimize": ("litdata", 4),
    "Hugging Face save_to_disk": ("hugging-face", 1),
    "np.save": ("raw", 1),
}


def contenders(work: Path, rows: int, processes: int) -> dict[str, Callable[[], dict[str, float]]]:
    """Make every writer, by the name of its row."""
    found: dict[str, Callable[[], dict[str, float]]] = {
        name: lambda key=key, share=share: write(work, key, max(rows // share, 1), processes, work / "out")
        for name, (key, share) in CONTENDERS.items()
    }
    for compression in ("none", "zstd"):
        name = "promoter-bert, the command" + (f", {compression}" if compression != "none" else "")
        found[name] = lambda compression=compression: write_by_command(work, compression, processes)
    return found


def write(work: Path, contender: str, rows: int, processes: int, out: Path) -> dict[str, float]:
    """Run a contender on the first rows of the ready ids."""
    shutil.rmtree(out, ignore_errors=True)
    size = ["--rows", str(rows), "--processes", str(processes)]
    return run_json(module("shards.write_contenders", contender, str(work / "ids.npy"), str(out), *size), [STUBS])


def write_by_command(work: Path, compression: str, processes: int) -> dict[str, float]:
    """Run `promoter-bert shards`."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    kind = [] if compression == "none" else [f"shards.compression={compression}"]
    options = ["--dataset", str(work / "dataset.duckdb"), "--out", str(out), "--workers", str(processes), "--k", str(K)]
    command = [COMMAND, "shards", *options, *kind]
    cost = run(command)
    result = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)
    return {"rows": result["rows"], "seconds": cost.wall, "cpu": cost.cpu, "bytes": result["bytes"]}


def prepare(work: Path, rows: int) -> None:
    """Make the ready ids, and a dataset of the same promoters."""
    column = promoters(rows, INSERT)
    np.save(work / "ids.npy", ids(column, K))
    write_tsv(work / "rows.tsv", column)
    sizes = ["dataset.finetune_valid=0.01", "dataset.finetune_test=0.01"]
    run([COMMAND, "build", str(work / "rows.tsv"), "--dataset", str(work / "dataset.duckdb"), *sizes])
    (work / "rows.tsv").unlink()


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=1_000_000)
    cli.add_argument("--times", type=int, default=3)
    args = cli.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        work = Path(name)
        prepare(work, args.rows)
        counts = {processes: medians(contenders(work, args.rows, processes), args.times) for processes in (1, 2)}
    rates = ["1 process, samples/s", "ours / this", "2 processes, samples/s", "ours / this"]
    head = ["", *rates, "CPU us per sample", "bytes per sample"]
    print(markdown(head, (line(counts, name) for name in counts[1])))


def line(counts: dict[int, dict[str, dict[str, float]]], name: str) -> list[str]:
    """Format a writer's row of the table."""
    rates = [{key: each["rows"] / each["seconds"] for key, each in found.items()} for found in counts.values()]
    cells = [text for rate in rates for text in (f"{rate[name]:,.0f}", f"{rate[OURS] / rate[name]:.2f}")]
    single = counts[1][name]
    return [name, *cells, f"{1e6 * single['cpu'] / single['rows']:.2f}", f"{single['bytes'] / single['rows']:,.0f}"]


if __name__ == "__main__":
    main()
