"""Writing shards, with 1 and 2 processes, beside webdataset, mosaicml-streaming, litdata and Hugging Face datasets.

    python -m bench.shards.write [--rows 1000000] [--times 3]

Every writer is given the same ready arrays: 411 uint8 ids a sample, a label and a dataset id, in memory; the slow ones
get a 4th to a 40th of the rows. "ready records" is write_tar of the project with its hashing, "the command" is
`promoter-bert shards` as a whole: Python's start, reading DuckDB, the ids, the hashes and flushing to the disk. The
peers hash and flush nothing. Needs 3 GB of disk and 2 GB of memory at 1,000,000 rows.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench.measure import COMMAND, answer, in_turn, markdown, module, run
from bench.promoters import ids, promoters, write_tsv

INSERT, K = 111, 3
OURS = "promoter-bert, ready records"
PEERS = {  # form, and which share of the rows it gets
    OURS: ("packed", 1),
    f"{OURS}, zstd": ("packed-zstd", 1),
    "webdataset, a sample a record (.npy, .json)": ("webdataset-npy", 40),
    "webdataset, a sample a record (raw bytes)": ("webdataset-bytes", 40),
    "mosaicml-streaming MDSWriter": ("mds", 8),
    "litdata optimize": ("litdata", 4),
    "Hugging Face save_to_disk": ("hugging-face", 1),
    "np.save": ("raw", 1),
}


def forms(work: Path, rows: int, processes: int) -> dict[str, Callable[[], dict[str, float]]]:
    """Every writer with so many processes, by its name."""
    found: dict[str, Callable[[], dict[str, float]]] = {
        name: lambda form=form, share=share: by_form(work, form, max(rows // share, 1), processes, work / "out")
        for name, (form, share) in PEERS.items()
    }
    for compression in ("none", "zstd"):
        name = "promoter-bert, the command" + (f", {compression}" if compression != "none" else "")
        found[name] = lambda compression=compression: by_command(work, compression, processes)
    return found


def by_form(work: Path, form: str, rows: int, processes: int, out: Path) -> dict[str, float]:
    """One run of a form of write_contenders.py, on the first rows of the ready ids."""
    emptied(out)
    size = ["--rows", str(rows), "--processes", str(processes)]
    return answer(module("shards.write_contenders", form, str(work / "ids.npy"), str(out), *size), stubs=True)


def by_command(work: Path, compression: str, processes: int) -> dict[str, float]:
    """One run of `promoter-bert shards`."""
    out = emptied(work / "out")
    kind = [] if compression == "none" else [f"shards.compression={compression}"]
    options = ["--dataset", str(work / "dataset.duckdb"), "--out", str(out), "--workers", str(processes), "--k", str(K)]
    command = [COMMAND, "shards", *options, *kind]
    cost = run(command)
    there = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)
    return {"rows": there["rows"], "seconds": cost.wall, "cpu": cost.cpu, "bytes": there["bytes"]}


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def prepare(work: Path, rows: int) -> None:
    """The ready ids, and a dataset of the same promoters."""
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
        counts = {processes: in_turn(forms(work, args.rows, processes), args.times) for processes in (1, 2)}
    rates = ["1 process, samples/s", "ours / it", "2 processes, samples/s", "ours / it"]
    head = ["", *rates, "CPU us a sample", "bytes a sample"]
    print(markdown(head, (line(counts, form) for form in counts[1])))


def line(counts: dict[int, dict[str, dict[str, float]]], form: str) -> list[str]:
    """A writer's row of the table."""
    rates = [{name: each["rows"] / each["seconds"] for name, each in found.items()} for found in counts.values()]
    cells = [text for rate in rates for text in (f"{rate[form]:,.0f}", f"{rate[OURS] / rate[form]:.2f}")]
    single = counts[1][form]
    return [form, *cells, f"{1e6 * single['cpu'] / single['rows']:.2f}", f"{single['bytes'] / single['rows']:,.0f}"]


if __name__ == "__main__":
    main()
