"""Rate of shuffled batches of 256 from cached files, beside webdataset, MosaicML, litdata and Hugging Face.

    python -m bench.stream.read [--rows 1000000] [--times 3] [--seconds 3]

A sample is 411 uint8 ids and a label. Each contender reads whole epochs for some seconds in a process of its own; the
rate includes first batches. Memory is the rise of the process's peak over its imports, pages of mapped files included.
Slow peers get 1/4 or 1/40 of the rows. Only ours checks hashes. The peers' batches are collated without Python per id:
raw bytes or Arrow buffers are joined to one array. (Hugging Face's numpy format widens ids to int64 and is slower.)
Needs Linux and 3 GB of disk.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.measure import COMMAND, STUBS, markdown, medians, module, run, run_json
from bench.shards.write import K, prepare, write

OURS = "promoter-bert"
FEED = 8 * 20_000
"""Samples per second that eight GPUs take."""
PEERS = {  # name in read_contenders.py, in write_contenders.py for its files, and the divisor of its rows
    "webdataset, one sample per record (.npy, .json)": ("webdataset-npy", "webdataset-npy", 40),
    "webdataset, one sample per record (raw bytes)": ("webdataset-bytes", "webdataset-bytes", 40),
    "mosaicml-streaming StreamingDataset": ("mds", "mds", 4),
    "litdata StreamingDataset": ("litdata", "litdata", 4),
    "Hugging Face datasets, map": ("hugging-face-map", "hugging-face", 1),
    "Hugging Face datasets, iterable": ("hugging-face-iterable", "hugging-face", 1),
    "memory-mapped array, random rows": ("memmap", "raw", 1),
}


def layout(work: Path, rows: int) -> None:
    """Write our shards, and every peer's files of the same promoters."""
    prepare(work, rows)
    run([COMMAND, "shards", "--dataset", str(work / "dataset.duckdb"), "--out", str(work / "shards"), "--k", str(K)])
    for name, share in {(name, share) for _, name, share in PEERS.values()}:
        write(work, name, max(rows // share, 1), 1, work / name)


def contenders(work: Path, seconds: float) -> dict[str, Callable[[], dict[str, float]]]:
    """Make every reader, by the name of its row."""
    mine = work / "shards" / f"k{K}"
    folders = {
        OURS: ("ours", mine, 1),
        "promoter-bert's shards through webdataset alone": ("plain-webdataset", mine, 1),
        **{name: (reader, work / folder, 1) for name, (reader, folder, _) in PEERS.items()},
        "promoter-bert, 2 ranks side by side": ("ours", mine, 2),
        "promoter-bert, 4 ranks side by side": ("ours", mine, 4),
    }
    return {name: lambda words=words: read(*words, seconds) for name, words in folders.items()}


def read(contender: str, folder: Path, ranks: int, seconds: float) -> dict[str, float]:
    """Run a contender."""
    options = ["--ranks", str(ranks), "--seconds", str(seconds)]
    return run_json(module("stream.read_contenders", contender, str(folder), *options), [STUBS])


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=1_000_000)
    cli.add_argument("--times", type=int, default=3)
    cli.add_argument("--seconds", type=float, default=3)
    args = cli.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        layout(Path(name), args.rows)
        found = medians(contenders(Path(name), args.seconds), args.times)
    head = ["", "samples/s", "ours / this", "first batch, ms", "CPU us per sample", "MB over imports"]
    print(markdown(head, ([name, *cells(found, name)] for name in found)))
    share = FEED * found[OURS]["cpu"] / 1e6
    print(f"\nEight GPUs at 20,000 samples/s each are fed by {share:.0%} of one core.")


def cells(found: dict[str, dict[str, float]], name: str) -> list[str]:
    """Format a reader's numbers."""
    one = found[name]
    ratio = found[OURS]["rate"] / one["rate"]
    times = f"{1000 * one['first']:,.0f}", f"{one['cpu']:.2f}"
    return [f"{one['rate']:,.0f}", f"{ratio:.2f}", *times, f"{one['over']:,.0f}"]


if __name__ == "__main__":
    main()
