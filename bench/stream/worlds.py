"""Count the bytes that the ranks of large worlds would read, from a made-up index, without processes or files.

    python -m bench.stream.worlds [--rows 10000000,1000000000] [--worlds 64,512] [--global-batch 4096]

The index is split (pipeline/shards/record_tables.py) if it is large; it is then written to a temporary folder and read
back, so that time and memory include it. Time and memory are those of one rank in a process of its own, bytes and
shards those of the rank that reads most, of up to 16 ranks.
"""

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import markdown
from bench.stream.read_contenders import peak_megabytes
from pipeline.shards.index import FORMAT, TAR_END_BYTES, Index, ShardEntry, read_index, serialize_files
from pipeline.shards.record_tables import RecordEntry
from pipeline.stream.batching import RankSlice, assign_rows
from pipeline.stream.lanes import list_upcoming, slice_lanes
from pipeline.stream.shuffle import EpochOrder, count_lanes

SPLIT = "finetune/train"
RECORD, RECORDS_PER_SHARD, BYTES_PER_ROW = 4096, 41, 428
"""Promoters per record, records in a shard of 64 MB at k = 3 and flank 150, and bytes of a promoter."""
OTHER_RANKS = 16


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
        shards.append(ShardEntry(name, sum(r.rows for r in records), offset + TAR_END_BYTES, digest, records))
    settings = [FORMAT, "dataset", 3, "", "", RECORD, 64.0, "none"]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    return Index(key, "dataset", 3, "uint8", "", "", RECORD, 64.0, "none", 0.0, 1.0, {SPLIT: shards})


def list_records(index: Index, rank: int, ranks: int, batch: int) -> set[tuple[int, int]]:
    """List the records that a rank reads in an epoch, as (shard, record of the shard)."""
    shards, rows = index.splits[SPLIT], index.rows(SPLIT)
    order = EpochOrder(
        [shard.rows for shard in shards],
        lambda shard: [record.rows for record in shards[shard].records],
        0, 0, batch, count_lanes(rows, batch),
    )  # fmt: skip
    rest = rows % batch
    tail = assign_rows(RankSlice(rank, ranks), rest).range if rest else (0, 0)
    slices = slice_lanes(order, 0, assign_rows(RankSlice(rank, ranks), batch).range, tail, reads_all=False)
    return {(shard, number) for shard, number in np.unique(list_upcoming(slices)[:, 1:], axis=0).tolist()}


def measure_world(folder: Path, ranks: int, batch: int, queue: Any) -> None:
    """Read the index and compute the order of the first rank, then what some other ranks read."""
    before, began = peak_megabytes(), time.process_time()
    index = read_index(folder)
    read_s, began = time.process_time() - began, time.process_time()
    met = list_records(index, 0, ranks, batch)
    order_s, memory = time.process_time() - began, peak_megabytes() - before
    shards = index.splits[SPLIT]
    results = []
    for rank in np.unique(np.linspace(0, ranks - 1, OTHER_RANKS).astype(int)).tolist():
        met = list_records(index, rank, ranks, batch)
        size = sum(shards[shard].records[number].bytes for shard, number in met)
        results.append((size, len({shard for shard, _ in met})))
    lanes = count_lanes(index.rows(SPLIT), batch)
    queue.put((lanes, read_s, order_s, memory, sum(shard.bytes for shard in shards), *max(results)))


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
                queue = context.Queue()
                worker = context.Process(target=measure_world, args=(Path(name), ranks, args.global_batch, queue))
                worker.start()
                lanes, read_s, order_s, memory, total, size, shards = queue.get()
                worker.join()
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
