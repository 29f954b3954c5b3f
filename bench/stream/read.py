"""Rate of shuffled batches of 256 from cached files: promoter-bert, webdataset, MosaicML, litdata, Hugging Face.

    python -m bench.stream.read [--rows 1000000] [--times 3] [--seconds 3]

A sample is 411 uint8 ids and a label. Each contender reads whole epochs for some seconds in its own process; the rate
includes first batches. Memory is the rise of the process's peak after its imports, pages of mapped files included. Slow
contenders get 1/4 or 1/40 of the rows. Only promoter-bert checks hashes. The other batches are collated without a
Python loop over ids: raw bytes or Arrow buffers are joined to one array. (Hugging Face's numpy format converts ids to
int64 and is slower.)
Needs Linux and 3 GB of disk.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.measure import COMMAND, STUBS, markdown, medians, module, run, run_json
from bench.shards.write import K, prepare, write

OURS = "promoter-bert"
FEED = 8 * 20_000
"""Samples per second that eight GPUs consume."""
PEERS = {  # name in read_contenders.py, in write_contenders.py, and divisor of rows
    "webdataset, one sample per record (.npy, .json)": ("webdataset-npy", "webdataset-npy", 40),
    "webdataset, one sample per record (raw bytes)": ("webdataset-bytes", "webdataset-bytes", 40),
    "mosaicml-streaming StreamingDataset": ("mds", "mds", 4),
    "litdata StreamingDataset": ("litdata", "litdata", 4),
    "Hugging Face datasets, map": ("hugging-face-map", "hugging-face", 1),
    "Hugging Face datasets, iterable": ("hugging-face-iterable", "hugging-face", 1),
    "memory-mapped array, random rows": ("memmap", "raw", 1),
}


def write_files(work: Path, rows: int) -> None:
    """Write our shards, and the files of all other contenders for the same promoters."""
    prepare(work, rows)
    run([COMMAND, "shards", "--dataset", str(work / "dataset.duckdb"), "--out", str(work / "shards"), "--k", str(K)])
    for name, share in {(name, share) for _, name, share in PEERS.values()}:
        write(work, name, max(rows // share, 1), 1, work / name)


def contenders(work: Path, seconds: float) -> dict[str, Callable[[], dict[str, float]]]:
    """Make all contenders: row of the table -> function that measures it."""
    ours = work / "shards" / f"k{K}"
    folders: dict[str, tuple[str, Path, int]] = {
        OURS: ("ours", ours, 1),
        "promoter-bert's shards through webdataset alone": ("plain-webdataset", ours, 1),
        **{name: (reader, work / folder, 1) for name, (reader, folder, _) in PEERS.items()},
        "promoter-bert, 2 ranks side by side": ("ours", ours, 2),
        "promoter-bert, 4 ranks side by side": ("ours", ours, 4),
    }
    return {name: partial(read, *arguments, seconds) for name, arguments in folders.items()}


def read(contender: str, folder: Path, ranks: int, seconds: float) -> dict[str, float]:
    """Run a contender of read_contenders.py."""
    options = ["--ranks", str(ranks), "--seconds", str(seconds)]
    return run_json(module("stream.read_contenders", contender, str(folder), *options), [STUBS])


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=1_000_000, help="samples; default: 1000000")
    cli.add_argument("--times", type=int, default=3, help="repetitions; default: 3")
    cli.add_argument("--seconds", type=float, default=3, help="seconds per contender; default: 3")
    args = cli.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        write_files(Path(name), args.rows)
        results = medians(contenders(Path(name), args.seconds), args.times)
    head = [
        "",
        "samples/s",
        "ours / this",
        "first batch, ms",
        "CPU us per sample",
        "in later epochs",
        "MB over imports",
    ]
    print(markdown(head, ([name, *cells(results, name)] for name in results)))
    share = FEED * results[OURS]["cpu"] / 1e6
    print(f"\nEight GPUs at 20,000 samples/s each use {share:.0%} of one core.")


def cells(results: dict[str, dict[str, float]], name: str) -> list[str]:
    """Format the row of a contender."""
    numbers = results[name]
    ratio = results[OURS]["rate"] / numbers["rate"]
    times = f"{1000 * numbers['first']:,.0f}", f"{numbers['cpu']:.2f}", f"{numbers['later']:.2f}"
    return [f"{numbers['rate']:,.0f}", f"{ratio:.2f}", *times, f"{numbers['over']:,.0f}"]


if __name__ == "__main__":
    main()
