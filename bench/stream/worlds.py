"""What ranks of large worlds would read: orders and byte counts from a made-up index, without processes or files.

    python -m bench.stream.worlds [--rows 10000000,1000000000] [--worlds 64,512] [--global-batch 4096]

The index is split (pipeline/shards/record_tables.py) if it is large; it is then written to a temporary folder and read
back, so that time and memory include it. Some ranks of each world run, each in a process of its own: the table shows
the one that reads most.
"""

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.measure import markdown
from bench.stream.read_contenders import peak_megabytes
from pipeline.shards.index import FORMAT, Index, RecordEntry, ShardEntry, read_index, serialize_files
from pipeline.stream.batching import RankSlice, assign_rows
from pipeline.stream.lanes import list_upcoming, slice_lanes
from pipeline.stream.shuffle import EpochOrder, count_lanes

SPLIT = "finetune/train"
RECORD, RECORDS_PER_SHARD, BYTES_PER_ROW = 4096, 41, 428
"""Promoters per record, records in a shard of 64 MB at k = 3 and flank 150, and bytes of a promoter."""
TAR_END = 1024


def make_index(rows: int) -> Index:
    """Make the index of shards that do not exist."""
    sizes = [RECORD] * (rows // RECORD) + [rows % RECORD] * (rows % RECORD > 0)
    shards = []
    for number, start in enumerate(range(0, len(sizes), RECORDS_PER_SHARD)):
        offset, records = 0, []
        for size in sizes[start : start + RECORDS_PER_SHARD]:
            records.append(RecordEntry(offset, -(-size * BYTES_PER_ROW // 512) * 512, size, 0))
            offset += records[-1].bytes
        name = f"{SPLIT}-{number:06d}.tar"
        digest = hashlib.sha256(name.encode()).hexdigest()
        shards.append(ShardEntry(name, sum(r.rows for r in records), offset + TAR_END, digest, records))
    settings = [FORMAT, "dataset", 3, "", "", RECORD, 64.0, "none"]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    return Index(key, "dataset", 3, "uint8", "", "", RECORD, 64.0, "none", 0.0, 1.0, {SPLIT: shards})


def measure_rank(folder: Path, rank: int, ranks: int, batch: int, queue) -> None:
    """Read the index, and compute what a rank reads in an epoch."""
    before, began = peak_megabytes(), time.process_time()
    index = read_index(folder)
    read_s, began = time.process_time() - began, time.process_time()
    shards, rows = index.splits[SPLIT], index.rows(SPLIT)
    lanes = count_lanes(rows, batch)
    order = EpochOrder(
        [shard.rows for shard in shards],
        lambda shard: [record.rows for record in shards[shard].records],
        0, 0, batch, lanes,
    )  # fmt: skip
    rest = rows % batch
    tail = assign_rows(RankSlice(rank, ranks), rest).range if rest else (0, 0)
    slices = slice_lanes(order, 0, assign_rows(RankSlice(rank, ranks), batch).range, tail, reads_all=False)
    upcoming = list_upcoming(slices)
    order_s = time.process_time() - began
    met = {(shard, number) for shard, number in np.unique(upcoming[:, 1:], axis=0).tolist()}
    size = sum(shards[shard].records[number].bytes for shard, number in met)
    total = sum(shard.bytes for shard in shards)
    queue.put((lanes, read_s, order_s, peak_megabytes() - before, size, total, len({shard for shard, _ in met})))


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", default="10000000,1000000000", help="promoters; default: 10000000,1000000000")
    cli.add_argument("--worlds", default="64,512", help="numbers of ranks; default: 64,512")
    cli.add_argument("--global-batch", type=int, default=4096, help="default: 4096")
    args = cli.parse_args()
    table = []
    context = multiprocessing.get_context("spawn")
    for rows in map(int, args.rows.split(",")):
        with tempfile.TemporaryDirectory() as name:
            sizes = {}
            for file, content in serialize_files(make_index(rows)).items():
                (Path(name) / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(name) / file).write_bytes(content)
                sizes[file] = len(content) / 1e6
            for ranks in map(int, args.worlds.split(",")):
                results = []
                for rank in sorted({0, ranks // 3, ranks // 2, ranks - 1}):
                    queue = context.Queue()
                    worker = context.Process(
                        target=measure_rank, args=(Path(name), rank, ranks, args.global_batch, queue)
                    )
                    worker.start()
                    results.append(queue.get())
                    worker.join()
                lanes, read_s, order_s, memory, size, total, shards = max(results, key=lambda result: result[4])
                table.append([
                    f"{rows:,}", f"{ranks}", f"{lanes}", " + ".join(f"{size:.1f}" for size in sizes.values()),
                    f"{read_s:.2f}", f"{order_s:.3f}", f"{memory:.0f}", f"{size / 1e9:.2f}", f"{size / total:.2%}",
                    f"{1 / ranks + 2 / lanes:.2%}", f"{shards}",
                ])  # fmt: skip
    head = [
        "promoters", "ranks", "lanes", "index files, MB", "read index, CPU s", "order, CPU s", "MB", "GB per epoch",
        "share", "bound", "shards",
    ]  # fmt: skip
    print(markdown(head, table))


if __name__ == "__main__":
    main()
