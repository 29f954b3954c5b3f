"""Soak test of the stream: hundreds of epochs, killed at random and resumed with other numbers of ranks.

    python -m bench.stream.soak --epochs 200

Each rank is a process, which reports the promoters of each step. At a random step one rank is killed with signal 9,
which ends all ranks. The next group of ranks resumes from a state saved some steps earlier, as training does from a
checkpoint. At the end, each promoter must have been read exactly once per epoch, in the order of one process that reads
all epochs without interruption. The memory of that process is printed as well. Lanes are short, so that there are 12.
"""

import argparse
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from model.config import load_config
from pipeline.dataset.build import build_dataset
from pipeline.dataset.synthetic.generate import generate
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from pipeline.stream import shuffle
from pipeline.stream.stream import RankSlice, ShardStream, StreamState

SPLIT = "finetune/train"
BATCH = 96
WORLDS = (1, 2, 3, 4, 8)
SEED = 7
LANE_ROWS = 200
"""Least promoters per lane, instead of 65,536."""

Steps = list[tuple[StreamState, bytes]]
"""State after each step, and the dataset ids of its global batch as int64 bytes."""


@dataclass(frozen=True)
class Report:
    """Report of a rank after a step: dataset ids of its promoters as int64 bytes, and the state as JSON."""

    ids: bytes
    state: str


def open_stream(folder: Path, rank_slice: RankSlice) -> ShardStream:
    """Open the stream of one rank."""
    shuffle.LANE_ROWS = LANE_ROWS
    return ShardStream(folder, read_index(folder), SPLIT, BATCH, rank_slice, SEED, reverse_complement=True)


def rank(folder: Path, rank_slice: RankSlice, state: str, epochs: int, out: Connection) -> None:
    """Run one rank from a state to the end, or until it is killed."""
    stream, at = open_stream(folder, rank_slice), StreamState.from_json(state)
    while at.epoch < epochs:
        for step in stream.resume(at):
            ids = [batch.id[batch.weight > 0] for batch in step.micro_batches]
            out.send(Report(np.concatenate(ids).tobytes(), stream.state(step.epoch, step.consumed).to_json()))
        at = stream.state(at.epoch + 1)
    out.close()


def run_world(folder: Path, state: StreamState, epochs: int, chance: random.Random) -> tuple[Steps, bool]:
    """Run a group of ranks to the end or until it is killed. Returns its steps, and whether it was killed."""
    ranks, micro_batches = chance.choice(WORLDS), chance.randint(1, 3)
    victim, last = chance.randrange(ranks), chance.randint(1, 400)
    context = multiprocessing.get_context("fork")
    ends: list[Connection] = []
    processes = []
    for number in range(ranks):
        receiver, sender = context.Pipe(duplex=False)
        rank_slice = RankSlice(number, ranks, micro_batches)
        process = context.Process(target=rank, args=(folder, rank_slice, state.to_json(), epochs, sender), daemon=True)
        process.start()
        sender.close()
        ends.append(receiver)
        processes.append(process)
    steps: Steps = []
    while len(steps) < last and (reports := next_step(ends)):
        assert len({one.state for one in reports}) == 1, "ranks report different states"
        steps.append((StreamState.from_json(reports[0].state), b"".join(one.ids for one in reports)))
    killed = len(steps) == last
    if killed:
        os.kill(processes[victim].pid or 0, signal.SIGKILL)
    for process, end in zip(processes, ends, strict=True):
        end.close()
        if killed:
            process.kill()
        process.join()
    return steps, killed


def next_step(ends: list[Connection]) -> list[Report]:
    """Receive the reports of all ranks for their next step; an empty list after the ranks have ended."""
    try:
        return [end.recv() for end in ends]
    except EOFError:
        return []


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=200, help="default: 200")
    options.add_argument("--promoters", type=int, default=3000, help="promoters of the dataset; default: 3000")
    options.add_argument("--seed", type=int, default=0, help="seed of kills and numbers of ranks; default: 0")
    args = options.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = make_small_shards(Path(place), args.promoters)
        alone = open_stream(folder, RankSlice())
        state, start, worlds, kills = alone.state(), time.monotonic(), 0, 0
        batches_of: list[list[bytes]] = [[] for _ in range(args.epochs)]
        while state.epoch < args.epochs:
            steps, killed = run_world(folder, state, args.epochs, chance)
            for after, ids in steps[: chance.randint(0, len(steps))] if killed else steps:
                batches_of[after.epoch].append(ids)
                state = after
            if state.consumed == alone.rows:
                state = alone.state(state.epoch + 1)
            worlds, kills = worlds + 1, kills + killed
        memory = []
        for epoch, batches in enumerate(batches_of):
            uninterrupted = [step.micro_batches[0].id for step in alone.epoch(epoch)]
            assert b"".join(batches) == b"".join(ids.tobytes() for ids in uninterrupted), f"epoch {epoch}: other order"
            assert len(np.unique(np.concatenate(uninterrupted))) == alone.rows, f"epoch {epoch}: not every promoter"
            memory.append(resident_megabytes())
    early = args.epochs // 10
    print(
        f"{args.epochs} epochs of {alone.rows:,} promoters in {alone.lanes} lanes: each read exactly once, in the\n"
        f"order of a process that was not killed\n"
        f"{worlds} groups of {', '.join(map(str, WORLDS))} ranks, {kills} of them killed\n"
        f"memory of the process that read all epochs: {memory[early]:.0f} MB after {early + 1} epochs, "
        f"{memory[-1]:.0f} MB after all\n{time.monotonic() - start:.0f} s"
    )


def resident_megabytes() -> float:
    """Return the current resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def make_small_shards(place: Path, promoters: int) -> Path:
    """Write shards of synthetic promoters in small records, so that there are many windows and shards."""
    config = load_config(
        overrides=[
            f"dataset.path={place}/dataset.duckdb", f"shards.path={place}/shards", "assay.flank=0",
            "shards.record_promoters=50", "shards.shard_megabytes=0.05", "dataset.finetune_valid=0.01",
            "dataset.finetune_test=0.01", "shards.workers=1",
        ]
    )  # fmt: skip
    generate(place / "rows.tsv", promoters, seed=1)
    build_dataset([str(place / "rows.tsv")], config)
    write_shards(config)
    return shard_folder(config)


if __name__ == "__main__":
    main()
