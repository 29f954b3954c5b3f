"""Rate of shard writing with 1 and 2 processes: promoter-bert, webdataset, mosaicml-streaming, litdata, Hugging Face.

    python -m bench.shards.write [--rows 1000000] [--times 3]

All writers get the same arrays in memory: per sample 411 uint8 ids, a label and a dataset id. Slow writers get 1/4 to
1/40 of the rows. "ready records" is write_tar of this project, hashes included. "the command" is all of `promoter-bert
shards`: start of Python, reading DuckDB, encoding, hashes and flushing to the disk. The others neither hash nor flush.
Needs 3 GB of disk and 2 GB of memory at 1,000,000 rows.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from bench.measure import COMMAND, STUBS, markdown, medians, module, run, run_json
from bench.promoters import encode, promoters, write_tsv

INSERT, K = 111, 3
OURS = "promoter-bert, ready records"
CONTENDERS = {  # name in write_contenders.py, and the divisor of the number of rows
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
    """Make all contenders: row of the table -> function that measures it."""
    measures: dict[str, Callable[[], dict[str, float]]] = {
        name: partial(write, work, key, max(rows // share, 1), processes, work / "out")
        for name, (key, share) in CONTENDERS.items()
    }
    for compression in ("none", "zstd"):
        name = "promoter-bert, the command" + (f", {compression}" if compression != "none" else "")
        measures[name] = partial(write_by_command, work, compression, processes)
    return measures


def write(work: Path, contender: str, rows: int, processes: int, out: Path) -> dict[str, float]:
    """Run a contender on the first rows of the encoded promoters."""
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
    """Write encoded promoters, and build a dataset of the same promoters."""
    column = promoters(rows, INSERT)
    np.save(work / "ids.npy", encode(column, K))
    write_tsv(work / "rows.tsv", column)
    sizes = ["dataset.finetune_valid=0.01", "dataset.finetune_test=0.01"]
    run([COMMAND, "build", str(work / "rows.tsv"), "--dataset", str(work / "dataset.duckdb"), *sizes])
    (work / "rows.tsv").unlink()


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=1_000_000, help="samples; default: 1000000")
    cli.add_argument("--times", type=int, default=3, help="repetitions; default: 3")
    args = cli.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        work = Path(name)
        prepare(work, args.rows)
        counts = {processes: medians(contenders(work, args.rows, processes), args.times) for processes in (1, 2)}
    rates = ["1 process, samples/s", "ours / this", "2 processes, samples/s", "ours / this"]
    head = ["", *rates, "CPU us per sample", "bytes per sample"]
    print(markdown(head, (line(counts, name) for name in counts[1])))


def line(counts: dict[int, dict[str, dict[str, float]]], name: str) -> list[str]:
    """Format the row of a contender."""
    rates = [{key: each["rows"] / each["seconds"] for key, each in results.items()} for results in counts.values()]
    cells = [text for rate in rates for text in (f"{rate[name]:,.0f}", f"{rate[OURS] / rate[name]:.2f}")]
    single = counts[1][name]
    return [name, *cells, f"{1e6 * single['cpu'] / single['rows']:.2f}", f"{single['bytes'] / single['rows']:,.0f}"]


if __name__ == "__main__":
    main()
