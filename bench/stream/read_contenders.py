"""Contenders of read.py: readers of shuffled batches of 256, epoch after epoch.

    python -m bench.stream.read_contenders NAME FOLDER [--seconds 3] [--ranks 1]

FOLDER: the contender's own files, from read.py. Prints JSON: samples per second over whole epochs, seconds to the first
batch, CPU microseconds per sample, also without the first epoch, and the rise of peak memory in MB. Imports are not
timed; all files are read once before. For several ranks: the sum of rates and memory, and the latest first batch.
"""

import argparse
import importlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream

BATCH = 256
BUFFER = 5000
"""Samples in a shuffle buffer, webdataset's usual size."""
SPLIT = "finetune/train"
Batches = Iterator[tuple[npt.NDArray, npt.NDArray]]
"""Batches: tokens (256, bases) and expression (256,); the last batch of an epoch is shorter."""
Loader = Callable[[int], Batches]
"""Function epoch -> its batches."""


def ours(folder: Path, rank: int = 0, ranks: int = 1) -> Loader:
    """Read with pipeline.stream; each rank gets 256 samples of a global batch."""
    stream = ShardStream(folder, read_index(folder), SPLIT, BATCH * ranks, RankSlice(rank, ranks))

    def epoch(number: int) -> Batches:
        for step in stream.epoch(number):
            yield step.micro_batches[0].tokens, step.micro_batches[0].expression

    return epoch


def plain_webdataset(folder: Path) -> Loader:
    """Read our shards with webdataset alone, which shuffles shards and records; numpy shuffles the rows of a record."""
    import webdataset as wds

    urls = sorted(map(str, folder.glob(f"{SPLIT}-*.tar")))

    def epoch(number: int) -> Batches:
        random = np.random.default_rng(number)
        for record in wds.WebDataset(urls, shardshuffle=len(urls), seed=number).shuffle(16).decode():
            offsets, labels = record["offsets.npy"], record["expression.npy"]
            tokens = record["tokens.npy"].reshape(len(labels), offsets[1])
            for rows in split_batches(random.permutation(len(labels))):
                yield tokens[rows], labels[rows]

    return epoch


def webdataset_npy(folder: Path) -> Loader:
    """Read one sample per record, with a shuffle buffer, decoded and batched by webdataset."""
    import webdataset as wds

    urls = sorted(map(str, folder.rglob("*.tar")))

    def epoch(number: int) -> Batches:
        samples = wds.WebDataset(urls, shardshuffle=len(urls), seed=number).shuffle(BUFFER, initial=BUFFER).decode()
        for tokens, facts in samples.to_tuple("tokens.npy", "json").batched(BATCH):
            yield tokens, np.array([one["expression"] for one in facts], np.float32)

    return epoch


def webdataset_bytes(folder: Path) -> Loader:
    """Read one sample per record as raw bytes, the least work for webdataset."""
    import webdataset as wds

    urls = sorted(map(str, folder.rglob("*.tar")))

    def epoch(number: int) -> Batches:
        samples = wds.WebDataset(urls, shardshuffle=len(urls), seed=number).shuffle(BUFFER, initial=BUFFER)
        for rows in samples.to_tuple("bin").batched(BATCH, collation_fn=list):
            block = np.frombuffer(b"".join(data for (data,) in rows), np.uint8).reshape(len(rows), -1)
            yield block[:, 12:], block[:, :4].copy().view(np.float32)[:, 0]

    return epoch


def mds(folder: Path) -> Loader:
    """Read with mosaicml-streaming and its default shuffle."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(folder / "0"), shuffle=True, batch_size=BATCH)
    return lambda _number: collate(dataset)


def litdata(folder: Path) -> Loader:
    """Read with litdata, shuffled."""
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=True)
    return lambda _number: collate(dataset)


def collate(samples: Iterator[dict]) -> Batches:
    """Collate samples into batches."""
    rows: list[dict] = []
    for sample in samples:
        rows.append(sample)
        if len(rows) == BATCH:
            yield stack(rows)
            rows = []
    if rows:
        yield stack(rows)


def stack(rows: list[dict]) -> tuple[npt.NDArray, npt.NDArray]:
    tokens = np.frombuffer(b"".join(row["ids"] for row in rows), np.uint8).reshape(len(rows), -1)
    return tokens, np.array([row["expression"] for row in rows], np.float32)


def hugging_face_map(folder: Path) -> Loader:
    """Read the rows of a permutation from the memory-mapped Arrow file of Hugging Face datasets."""
    from datasets import load_from_disk

    dataset = load_from_disk(folder / "0").with_format("arrow")

    def epoch(number: int) -> Batches:
        for rows in split_batches(np.random.default_rng(number).permutation(len(dataset))):
            yield to_arrays(dataset[rows])

    return epoch


def hugging_face_iterable(folder: Path) -> Loader:
    """Read Hugging Face datasets as an iterable, with a shuffle buffer of Arrow tables."""
    from datasets import load_from_disk

    dataset = load_from_disk(folder / "0").to_iterable_dataset(num_shards=16)
    dataset = dataset.shuffle(seed=0, buffer_size=BUFFER).with_format("arrow")

    def epoch(number: int) -> Batches:
        dataset.set_epoch(number)
        for batch in dataset.iter(BATCH):
            yield to_arrays(batch)

    return epoch


def to_arrays(table) -> tuple[npt.NDArray, npt.NDArray]:
    """Convert an Arrow table to arrays without a Python loop over rows."""
    tokens = table["ids"].combine_chunks()
    return tokens.flatten().to_numpy().reshape(len(tokens), -1), table["expression"].to_numpy()


def memmap(folder: Path) -> Loader:
    """Read random rows of a memory-mapped array, as a lower bound of the time."""
    tokens, labels = (np.load(folder / "0" / f"{name}.npy", mmap_mode="r") for name in ("ids", "expression"))

    def epoch(number: int) -> Batches:
        for rows in split_batches(np.random.default_rng(number).permutation(len(labels))):
            yield tokens[rows], labels[rows]

    return epoch


def split_batches(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Split row numbers into batches."""
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


# Contender -> modules imported before the clock starts, and its loader. Hugging Face's iterable imports torch.
CONTENDERS: dict[str, tuple[tuple[str, ...], Callable[[Path], Loader]]] = {
    "ours": ((), ours),
    "plain-webdataset": (("webdataset",), plain_webdataset),
    "webdataset-npy": (("webdataset",), webdataset_npy),
    "webdataset-bytes": (("webdataset",), webdataset_bytes),
    "mds": (("streaming",), mds),
    "litdata": (("litdata",), litdata),
    "hugging-face-map": (("datasets",), hugging_face_map),
    "hugging-face-iterable": (("datasets", "torch"), hugging_face_iterable),
    "memmap": ((), memmap),
}


def measure(make: Callable[[], Loader], seconds: float) -> dict[str, float]:
    """Read whole epochs for at least `seconds`."""
    memory, cpu, start = peak_megabytes(), time.process_time(), time.monotonic()
    samples, first, number, sizes, checked = 0, 0.0, 0, set(), cpu
    loader = make()
    while time.monotonic() - start < seconds or not number:
        earlier = samples
        for tokens, labels in loader(number):
            first = first or time.monotonic() - start
            assert len(tokens) == len(labels)
            samples += len(labels)
        number += 1
        sizes.add(samples - earlier)
        if number == 1:
            checked = time.process_time()
    seconds_total = time.monotonic() - start
    assert len(sizes) == 1, f"epochs of {sizes} samples"
    return {
        "rate": samples / seconds_total,
        "first": first,
        "cpu": 1e6 * (time.process_time() - cpu) / samples,
        "later": 1e6 * (time.process_time() - checked) / max(samples * (number - 1) // number, 1),
        "over": peak_megabytes() - memory,
        "rows": samples / number,
    }


def peak_megabytes() -> float:
    """Return the peak resident memory of this process in MB; getrusage includes that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1000


def run_rank(folder: Path, rank: int, ranks: int, seconds: float, start, queue) -> None:
    """Run one rank of promoter-bert as soon as all are ready."""
    start.wait()
    queue.put(measure(lambda: ours(folder, rank, ranks), seconds))


def run_ranks(folder: Path, ranks: int, seconds: float) -> dict[str, float]:
    """Run several ranks of promoter-bert at the same time."""
    context = multiprocessing.get_context("spawn")
    start, queue = context.Barrier(ranks), context.Queue()
    workers = [
        context.Process(target=run_rank, args=(folder, rank, ranks, seconds, start, queue)) for rank in range(ranks)
    ]
    for process in workers:
        process.start()
    results = [queue.get() for _ in workers]
    for process in workers:
        process.join()
    rates = np.array([one["rate"] for one in results])
    totals = {name: sum(one[name] for one in results) for name in ("over", "rows")}
    cpu = {name: float(np.average([one[name] for one in results], weights=rates)) for name in ("cpu", "later")}
    return {"rate": float(rates.sum()), "first": max(one["first"] for one in results), **cpu, **totals}


def fill_cache(folder: Path) -> None:
    """Read all files once, so that they are in the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("name", choices=CONTENDERS)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--seconds", type=float, default=3, help="least time to read; default: 3")
    cli.add_argument("--ranks", type=int, default=1, help="processes at the same time, only for ours; default: 1")
    args = cli.parse_args()
    modules, make = CONTENDERS[args.name]
    for module in modules:
        importlib.import_module(module)
    fill_cache(args.folder)
    if args.ranks > 1:
        print(json.dumps(run_ranks(args.folder, args.ranks, args.seconds)))
    else:
        print(json.dumps(measure(lambda: make(args.folder), args.seconds)))


if __name__ == "__main__":
    main()
