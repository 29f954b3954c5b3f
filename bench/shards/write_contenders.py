"""Contenders of write.py: writers of ids, labels and dataset ids, one sample per row.

    python -m bench.shards.write_contenders NAME IDS.npy FOLDER [--rows N] [--processes N]

IDS.npy: uint8 (rows, bases). Prints JSON: rows; seconds from the first process's start of work to the last one's end;
their CPU seconds; bytes written. Imports and loading the arrays are not timed. litdata always starts its own processes,
whose start is timed.
"""

import argparse
import importlib
import json
import multiprocessing
import resource
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.shards.records import Record
from pipeline.shards.writer import write_tar
from pipeline.tokens.kmers import Ragged

RECORD = 4096
SHARD_BYTES = 64_000_000


@dataclass(frozen=True)
class Samples:
    """Samples in memory: ids uint8 (rows, bases), expression float32 (rows,), id int64 (rows,)."""

    ids: npt.NDArray[np.uint8]
    expression: npt.NDArray[np.float32]
    id: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.id)

    def rows(self, rows: slice) -> "Samples":
        """Select a slice of the samples."""
        return Samples(self.ids[rows], self.expression[rows], self.id[rows])


def load(file: Path, first: int, end: int, in_memory: bool = True) -> Samples:
    """Load rows `first` to `end` of a file of ids, and add labels and dataset ids."""
    ids = np.load(file, mmap_mode="r")[first:end]
    numbers = np.arange(first, end, dtype=np.int64)
    return Samples(np.array(ids) if in_memory else ids, (numbers % 1700 / 100).astype(np.float32), numbers)


def promoter_bert(samples: Samples, folder: Path, zstd: bool = False) -> None:
    """Write records of 4,096 samples in tars of 64 MB, with sha256 per file and CRC-32 per record."""
    per_shard = SHARD_BYTES // (samples.ids.shape[1] + 16)
    for number, start in enumerate(range(0, len(samples), per_shard)):
        shard = samples.rows(slice(start, start + per_shard))
        records = (make_record(shard.rows(slice(first, first + RECORD))) for first in range(0, len(shard), RECORD))
        with (folder / f"{number:06d}.tar").open("wb") as file:
            write_tar(file, file.name, 0, records, zstd)


def make_record(samples: Samples) -> Record:
    rows, bases = samples.ids.shape
    tokens = Ragged(samples.ids.reshape(-1), np.arange(0, (rows + 1) * bases, bases, dtype=np.int64))
    return Record(tokens, samples.expression, samples.id)


def raw(samples: Samples, folder: Path) -> None:
    """Write plain arrays: the lower bound."""
    for name in ("ids", "expression", "id"):
        np.save(folder / f"{name}.npy", getattr(samples, name))


def webdataset_npy(samples: Samples, folder: Path) -> None:
    """Write one sample per record, as in webdataset's documentation."""
    from webdataset import ShardWriter

    with ShardWriter(f"{folder}/%06d.tar", maxcount=10**9, maxsize=SHARD_BYTES, verbose=0) as sink:
        for ids, label, number in zip(samples.ids, samples.expression, samples.id, strict=True):
            about = {"expression": float(label), "id": int(number)}
            sink.write({"__key__": f"{number:09d}", "tokens.npy": ids, "json": about})


def webdataset_bytes(samples: Samples, folder: Path) -> None:
    """Write one sample per record as one member of raw bytes, the least work for webdataset."""
    from webdataset import ShardWriter

    with ShardWriter(f"{folder}/%06d.tar", maxcount=10**9, maxsize=SHARD_BYTES, verbose=0) as sink:
        for ids, label, number in zip(samples.ids, samples.expression, samples.id, strict=True):
            sink.write({"__key__": f"{number:09d}", "bin": struct.pack("<fq", label, number) + ids.tobytes()})


def mds(samples: Samples, folder: Path) -> None:
    """Write the MDS format of mosaicml-streaming."""
    from streaming import MDSWriter

    columns = {"ids": "bytes", "expression": "float32", "id": "int64"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=SHARD_BYTES) as writer:
        for ids, label, number in zip(samples.ids, samples.expression, samples.id, strict=True):
            writer.write({"ids": ids.tobytes(), "expression": label, "id": number})


def hugging_face(samples: Samples, folder: Path) -> None:
    """Write a Hugging Face dataset from one Arrow table, without a copy of the arrays."""
    make_dataset(samples).save_to_disk(folder)


def make_dataset(samples: Samples):
    import pyarrow as pa
    from datasets import Dataset

    flat = pa.array(samples.ids.reshape(-1))
    ids = pa.FixedSizeListArray.from_arrays(flat, samples.ids.shape[1])
    return Dataset(pa.table({"ids": ids, "expression": samples.expression, "id": samples.id}))


def litdata(file: Path, rows: int, folder: Path, processes: int) -> None:
    """Write with litdata's optimize, which starts its own processes. One input is the row range of one record."""
    from litdata import optimize

    optimize(
        fn=partial(litdata_samples, file),
        inputs=[(start, min(start + RECORD, rows)) for start in range(0, rows, RECORD)],
        output_dir=str(folder),
        chunk_bytes=SHARD_BYTES,
        num_workers=processes,
        verbose=False,
    )


def litdata_samples(file: Path, rows: tuple[int, int]) -> Iterator[dict]:
    samples = load(file, *rows)
    for ids, label, number in zip(samples.ids, samples.expression, samples.id, strict=True):
        yield {"ids": ids.tobytes(), "expression": float(label), "id": int(number)}


# Each process gets its own part of the rows in memory and its own folder.
PARALLEL: dict[str, tuple[str, Callable[[Samples, Path], None]]] = {
    "packed": ("pipeline.shards.writer", promoter_bert),
    "packed-zstd": ("pipeline.shards.writer", partial(promoter_bert, zstd=True)),
    "raw": ("numpy", raw),
    "webdataset-npy": ("webdataset", webdataset_npy),
    "webdataset-bytes": ("webdataset", webdataset_bytes),
    "mds": ("streaming", mds),
    "hugging-face": ("datasets", hugging_face),
}


def one_process(name: str, file: Path, bounds: tuple[int, int], folder: Path, start, times) -> None:
    """Write the part of one process as soon as all are ready. times: queue for start, end and CPU seconds."""
    module, write = PARALLEL[name]
    importlib.import_module(module)
    samples = load(file, *bounds)
    folder.mkdir(parents=True)
    start.wait()
    begin, cpu = time.monotonic(), time.process_time()
    write(samples, folder)
    times.put((begin, time.monotonic(), time.process_time() - cpu))


def run_parallel(name: str, file: Path, rows: int, folder: Path, processes: int) -> tuple[float, float]:
    """Measure wall and CPU seconds of a contender in several processes."""
    context = multiprocessing.get_context("spawn")
    start, times = context.Barrier(processes), context.Queue()
    bounds = [(rows * i // processes, rows * (i + 1) // processes) for i in range(processes)]
    workers = [
        context.Process(target=one_process, args=(name, file, part, folder / str(i), start, times))
        for i, part in enumerate(bounds)
    ]
    for process in workers:
        process.start()
    results = [times.get() for _ in workers]
    for process in workers:
        process.join()
    begins, ends, seconds = zip(*results, strict=True)
    return max(ends) - min(begins), sum(seconds)


def run_litdata(file: Path, rows: int, folder: Path, processes: int) -> tuple[float, float]:
    """Measure wall and CPU seconds of litdata."""
    importlib.import_module("litdata")
    start, cpu = time.monotonic(), cpu_seconds()
    litdata(file, rows, folder, processes)
    return time.monotonic() - start, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the children that it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usages)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("name", choices=[*PARALLEL, "litdata"])
    cli.add_argument("ids", type=Path)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--rows", type=int)
    cli.add_argument("--processes", type=int, default=1)
    args = cli.parse_args()
    rows = args.rows or len(np.load(args.ids, mmap_mode="r"))
    if args.name == "litdata":
        seconds, cpu = run_litdata(args.ids, rows, args.folder, args.processes)
    else:
        seconds, cpu = run_parallel(args.name, args.ids, rows, args.folder, args.processes)
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu": cpu, "bytes": size}))


if __name__ == "__main__":
    main()
