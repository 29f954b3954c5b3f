"""Shuffled batches of 256 from warm files, one process, beside webdataset, MosaicML, litdata and Hugging Face.

    python -m bench.stream.read [--rows 1000000] [--times 3] [--seconds 3]

411 uint8 ids a sample, and its label. Each form reads whole epochs for some seconds in a process of its own; the rate
is over all of them, first batches included. Memory is what the process's peak rises by over its imports; pages of
mapped files count. The slow peers get a 4th or a 40th of the rows. Only ours checks hashes. The peers' batches are put
together without Python per id: raw bytes or Arrow buffers joined to one array (Hugging Face's numpy format widens ids
to int64 and is slower). Needs Linux and 3 GB of disk.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.measure import COMMAND, answer, in_turn, markdown, module, run

from bench.shards.write import K, by_form, prepare

OURS = "promoter-bert"
FEED = 8 * 20_000
"""Samples a second that eight GPUs take."""
PEERS = {  # form of read_contenders.py, the form of write_contenders.py that writes its files, and which share of the rows
    "webdataset, a sample a record (.npy, .json)": ("webdataset-npy", "webdataset-npy", 40),
    "webdataset, a sample a record (raw bytes)": ("webdataset-bytes", "webdataset-bytes", 40),
    "mosaicml-streaming StreamingDataset": ("mds", "mds", 4),
    "litdata StreamingDataset": ("litdata", "litdata", 4),
    "Hugging Face datasets, map": ("hugging-face-map", "hugging-face", 1),
    "Hugging Face datasets, iterable": ("hugging-face-iterable", "hugging-face", 1),
    "memory-mapped array, random rows": ("memmap", "raw", 1),
}


def layout(work: Path, rows: int) -> None:
    """Our shards, and every peer's files of the same promoters."""
    prepare(work, rows)
    run([COMMAND, "shards", "--dataset", str(work / "dataset.duckdb"), "--out", str(work / "shards"), "--k", str(K)])
    for form, share in {(form, share) for _, form, share in PEERS.values()}:
        by_form(work, form, max(rows // share, 1), 1, work / form)


def forms(work: Path, seconds: float) -> dict[str, Callable[[], dict[str, float]]]:
    """Every reader, by its name."""
    mine = work / "shards" / f"k{K}"
    folders = {
        OURS: ("ours", mine, 1),
        "promoter-bert's shards through webdataset alone": ("plain-webdataset", mine, 1),
        **{name: (form, work / folder, 1) for name, (form, folder, _) in PEERS.items()},
        "promoter-bert, 2 ranks side by side": ("ours", mine, 2),
        "promoter-bert, 4 ranks side by side": ("ours", mine, 4),
    }
    return {name: lambda what=what: read(*what, seconds) for name, what in folders.items()}


def read(form: str, folder: Path, ranks: int, seconds: float) -> dict[str, float]:
    """One run of a form."""
    options = ["--ranks", str(ranks), "--seconds", str(seconds)]
    return answer(module("stream.read_contenders", form, str(folder), *options), stubs=True)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=1_000_000)
    cli.add_argument("--times", type=int, default=3)
    cli.add_argument("--seconds", type=float, default=3)
    args = cli.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        layout(Path(name), args.rows)
        found = in_turn(forms(Path(name), args.seconds), args.times)
    head = ["", "samples/s", "ours / it", "first batch, ms", "CPU us a sample", "MB over imports"]
    print(markdown(head, ([name, *cells(found, name)] for name in found)))
    share = FEED * found[OURS]["cpu"] / 1e6
    print(f"\nEight GPUs at 20,000 samples/s each are fed by {share:.0%} of one core.")


def cells(found: dict[str, dict[str, float]], name: str) -> list[str]:
    """A reader's numbers as text."""
    one = found[name]
    ratio = found[OURS]["rate"] / one["rate"]
    times = f"{1000 * one['first']:,.0f}", f"{one['cpu']:.2f}"
    return [f"{one['rate']:,.0f}", f"{ratio:.2f}", *times, f"{one['over']:,.0f}"]


if __name__ == "__main__":
    main()
