"""Soak test of the stream: hundreds of epochs, killed at random and resumed on other numbers of ranks.

    python -m bench.stream.soak --epochs 200

Every rank is a process. After each step it reports the promoters it took. At random, one rank is killed with signal 9
and all end. Another world resumes from a state saved some steps before, as training does from a checkpoint. In the end
every promoter must have come exactly once per epoch, in the order of one process that reads all epochs without
interruption. The memory of that process is reported, too.
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
from pipeline.dataset.synthetic import generate
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from pipeline.stream.stream import RankSlice, ShardStream, StreamState

SPLIT = "finetune/train"
BATCH = 96
WORLDS = (1, 2, 3, 4, 8)
SEED = 7

Steps = list[tuple[StreamState, bytes]]
"""State after each step, and the dataset ids of its global batch."""


@dataclass(frozen=True)
class Report:
    """Report of a rank after a step: the dataset ids it took, and the state after it."""

    ids: bytes
    state: str


def stream_of(folder: Path, rank_slice: RankSlice) -> ShardStream:
    """Make one rank's stream."""
    return ShardStream(folder, read_index(folder), SPLIT, BATCH, rank_slice, SEED, reverse_complement=True)


def rank(folder: Path, rank_slice: RankSlice, state: str, epochs: int, out: Connection) -> None:
    """Run one rank from a state on, to the end or until it is killed."""
    stream, at = stream_of(folder, rank_slice), StreamState.from_json(state)
    while at.epoch < epochs:
        for step in stream.resume(at):
            taken = [batch.id[batch.weight > 0] for batch in step.micro_batches]
            out.send(Report(np.concatenate(taken).tobytes(), stream.state(step.epoch, step.consumed).to_json()))
        at = stream.state(at.epoch + 1)
    out.close()


def run_world(folder: Path, state: StreamState, epochs: int, chance: random.Random) -> tuple[Steps, bool]:
    """Run a world to its end or until it is killed. Returns its steps, and whether it was killed."""
    ranks, micro_batches = chance.choice(WORLDS), chance.randint(1, 3)
    doomed, last = chance.randrange(ranks), chance.randint(1, 400)
    context = multiprocessing.get_context("fork")
    ends: list[Connection] = []
    processes = []
    for number in range(ranks):
        here, there = context.Pipe(duplex=False)
        rank_slice = RankSlice(number, ranks, micro_batches)
        process = context.Process(target=rank, args=(folder, rank_slice, state.to_json(), epochs, there), daemon=True)
        process.start()
        there.close()
        ends.append(here)
        processes.append(process)
    steps: Steps = []
    while len(steps) < last and (reports := next_step(ends)):
        assert len({one.state for one in reports}) == 1, "ranks disagree on where they are"
        steps.append((StreamState.from_json(reports[0].state), b"".join(one.ids for one in reports)))
    killed = len(steps) == last
    if killed:
        os.kill(processes[doomed].pid or 0, signal.SIGKILL)
    for process, end in zip(processes, ends, strict=True):
        end.close()
        if killed:
            process.kill()
        process.join()
    return steps, killed


def next_step(ends: list[Connection]) -> list[Report]:
    """Receive the ranks' reports of their next step; nothing once they have ended."""
    try:
        return [end.recv() for end in ends]
    except EOFError:
        return []


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=200)
    options.add_argument("--promoters", type=int, default=3000)
    options.add_argument("--seed", type=int, default=0, help="seed of the kills and worlds")
    args = options.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = small_shards(Path(place), args.promoters)
        alone = stream_of(folder, RankSlice())
        state, began, worlds, kills = alone.state(), time.monotonic(), 0, 0
        found: list[list[bytes]] = [[] for _ in range(args.epochs)]
        while state.epoch < args.epochs:
            steps, killed = run_world(folder, state, args.epochs, chance)
            for after, ids in steps[: chance.randint(0, len(steps))] if killed else steps:
                found[after.epoch].append(ids)
                state = after
            if state.consumed == alone.rows:
                state = alone.state(state.epoch + 1)
            worlds, kills = worlds + 1, kills + killed
        memory = []
        for epoch, batches in enumerate(found):
            uninterrupted = [step.micro_batches[0].id for step in alone.epoch(epoch)]
            assert b"".join(batches) == b"".join(ids.tobytes() for ids in uninterrupted), f"epoch {epoch}: other order"
            assert len(np.unique(np.concatenate(uninterrupted))) == alone.rows, f"epoch {epoch}: not every promoter"
            memory.append(resident_megabytes())
    early = args.epochs // 10
    print(
        f"{args.epochs} epochs of {alone.rows:,} promoters: each exactly once, in the order of a process that was not "
        f"killed\n{worlds} worlds of {', '.join(map(str, WORLDS))} ranks, {kills} of them killed\n"
        f"memory of the process that read all epochs: {memory[early]:.0f} MB after {early + 1} of them, "
        f"{memory[-1]:.0f} MB after all\n{time.monotonic() - began:.0f} s"
    )


def resident_megabytes() -> float:
    """Read the present memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def small_shards(place: Path, promoters: int) -> Path:
    """Write shards of generated promoters, with small records, so that there are many windows and shards."""
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
