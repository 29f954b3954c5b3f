"""CPU time of one epoch, summed over ranks: one after the other, and side by side.

    python -m bench.stream.ranks FOLDER [--worlds 1,2,4,8] [--global-batch 2048] [--epochs 3]

FOLDER: shards of one k whose promoters all have one length. In the first epoch, every record is checked once, by the
rank that reads it. In later epochs a process checks only the records that it has not met before. Ranks side by side are
processes that share lengths by torch.distributed (gloo). With more processes than cores they also wait for each other
and for memory. The first column shows the work alone: the ranks run one after the other, without an exchange.
"""

import argparse
import multiprocessing
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import markdown
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream
from pipeline.tokens.kmers import Numbers

SPLIT = "finetune/train"


def run_rank(folder: Path, rank: int, ranks: int, batch: int, epochs: int, port: int, queue: Any) -> None:
    """Read epochs as one rank. Reports CPU seconds per epoch, share of the bytes read in the first one, and rows."""
    import torch.distributed as dist

    from model.distributed.consensus import make_fact_exchange

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    index = read_index(folder)
    stream = ShardStream(folder, index, SPLIT, batch, RankSlice(rank, ranks), exchange=make_fact_exchange(rank))
    seconds, rows = [], 0
    np.random.default_rng(0)  # numpy imports its generators on first use, which is no part of reading
    for epoch in range(epochs):
        dist.barrier()
        began = time.process_time()
        for step in stream.epoch(epoch):
            rows += int(step.micro_batches[0].weight.sum())
        seconds.append(time.process_time() - began)
        if not epoch:
            share = read_bytes(stream) / sum(shard.bytes for shard in index.splits[SPLIT])
    dist.destroy_process_group()
    queue.put((seconds, share, rows))


def _share_first(error: str | None, facts: Numbers | None, _counts: Numbers) -> tuple[str | None, Numbers]:
    """Take the facts of all promoters as equal to the first one's."""
    assert facts is not None
    return error, facts[:1]


def read_in_turn(folder: Path, ranks: int, batch: int, times: int) -> float:
    """Read the first epoch as each rank, one after the other. Returns the median of the summed CPU seconds."""
    index, totals = read_index(folder), []
    for _ in range(times):
        totals.append(0.0)
        for rank in range(ranks):
            stream = ShardStream(folder, index, SPLIT, batch, RankSlice(rank, ranks), exchange=_share_first)
            began = time.process_time()
            for _step in stream.epoch(0):
                pass
            totals[-1] += time.process_time() - began
    return float(np.median(totals))


def read_bytes(stream: ShardStream) -> int:
    """Sum the bytes of the records that a stream has met."""
    shards = stream.index.splits[SPLIT]
    checked = stream._reader._checked.items()
    return sum(
        shards[shard].records[number].bytes
        for shard, (_, places) in checked
        for number in np.flatnonzero(places[:, 0] != -1).tolist()
    )


def run_world(folder: Path, ranks: int, batch: int, epochs: int) -> list[str]:
    """Run the ranks of a world. Returns the row of the table."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=run_rank, args=(folder, rank, ranks, batch, epochs, port, queue))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    results = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    index = read_index(folder)
    assert sum(rows for *_, rows in results) == epochs * index.rows(SPLIT)
    totals = [sum(column) for column in zip(*(seconds for seconds, *_ in results), strict=True)]
    later = sum(totals[1:]) / max(len(totals) - 1, 1)
    share = max(share for _, share, _ in results)
    alone = read_in_turn(folder, ranks, batch, 3)
    return [str(ranks), f"{alone:.2f}", f"{totals[0]:.2f}", f"{later:.2f}", f"{share:.1%}"]


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--worlds", default="1,2,4,8", help="numbers of ranks; default: 1,2,4,8")
    cli.add_argument("--global-batch", type=int, default=2048, help="default: 2048")
    cli.add_argument("--epochs", type=int, default=3, help="default: 3")
    args = cli.parse_args()
    read_in_turn(args.folder, 1, args.global_batch, 1)
    worlds = [int(ranks) for ranks in args.worlds.split(",")]
    rows = [run_world(args.folder, ranks, args.global_batch, args.epochs) for ranks in worlds]
    print(f"{read_index(args.folder).rows(SPLIT):,} promoters, global batch {args.global_batch:,}\n")
    print(
        markdown(
            ["ranks", "in turn, CPU s", "side by side, CPU s", "later epochs, CPU s", "most bytes of a rank"], rows
        )
    )


if __name__ == "__main__":
    main()
