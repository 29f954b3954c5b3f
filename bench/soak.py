"""The stream for hundreds of epochs, killed at random and gone on with by other numbers of ranks.

Every rank is a process of its own. After each step it tells which promoters it took. Now and then one of them is killed
with signal 9, all end, and another world goes on from a state that was saved some steps before, as training does from a
checkpoint. In the end every promoter must have come exactly once an epoch, in the order of one process that reads all
epochs without interruption; the memory of that one is read, too.

    python bench/soak.py --epochs 200
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
from pipeline.shards.staleness import shard_folder
from pipeline.shards.write import write_shards
from pipeline.stream.state import StreamState
from pipeline.stream.stream import Part, Stream

SPLIT = "finetune/train"
BATCH = 96
WORLDS = (1, 2, 3, 4, 8)
SEED = 7

Steps = list[tuple[StreamState, bytes]]
"""State after each step, and the dataset ids of its global batch."""


@dataclass(frozen=True)
class Told:
    """What a rank says after a step: the dataset ids it took, and the state after it."""

    ids: bytes
    state: str


def stream_of(folder: Path, part: Part) -> Stream:
    """One rank's stream."""
    return Stream(folder, read_index(folder), SPLIT, BATCH, part, SEED, reverse_complement=True)


def rank(folder: Path, part: Part, state: str, epochs: int, out: Connection) -> None:
    """A rank's life: steps from a state on, to the end or until it is killed."""
    stream, at = stream_of(folder, part), StreamState.from_json(state)
    while at.epoch < epochs:
        for step in stream.resume(at):
            taken = [batch.id[batch.weight > 0] for batch in step.micro_batches]
            out.send(Told(np.concatenate(taken).tobytes(), stream.state(step.epoch, step.consumed).to_json()))
        at = stream.state(at.epoch + 1)
    out.close()


def live(folder: Path, state: StreamState, epochs: int, chance: random.Random) -> tuple[Steps, bool]:
    """One world until it is killed or through: its steps, and whether it was killed."""
    ranks, micro_batches = chance.choice(WORLDS), chance.randint(1, 3)
    doomed, last = chance.randrange(ranks), chance.randint(1, 400)
    context = multiprocessing.get_context("fork")
    ends: list[Connection] = []
    processes = []
    for number in range(ranks):
        here, there = context.Pipe(duplex=False)
        part = Part(number, ranks, micro_batches)
        process = context.Process(target=rank, args=(folder, part, state.to_json(), epochs, there), daemon=True)
        process.start()
        there.close()
        ends.append(here)
        processes.append(process)
    steps: Steps = []
    while len(steps) < last and (told := next_step(ends)):
        assert len({one.state for one in told}) == 1, "ranks disagree on where they are"
        steps.append((StreamState.from_json(told[0].state), b"".join(one.ids for one in told)))
    killed = len(steps) == last
    if killed:
        os.kill(processes[doomed].pid or 0, signal.SIGKILL)
    for process, end in zip(processes, ends, strict=True):
        end.close()
        if killed:
            process.kill()
        process.join()
    return steps, killed


def next_step(ends: list[Connection]) -> list[Told]:
    """What the ranks say of their next step; nothing once they are through."""
    try:
        return [end.recv() for end in ends]
    except EOFError:
        return []


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=200)
    options.add_argument("--promoters", type=int, default=3000)
    options.add_argument("--seed", type=int, default=0, help="of the kills and worlds")
    asked = options.parse_args()
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = made(Path(place), asked.promoters)
        alone = stream_of(folder, Part())
        state, began, worlds, kills = alone.state(), time.monotonic(), 0, 0
        found: list[list[bytes]] = [[] for _ in range(asked.epochs)]
        while state.epoch < asked.epochs:
            steps, killed = live(folder, state, asked.epochs, chance)
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
    early = asked.epochs // 10
    print(
        f"{asked.epochs} epochs of {alone.rows:,} promoters: each exactly once, in the order of a process that was not "
        f"killed\n{worlds} worlds of {', '.join(map(str, WORLDS))} ranks, {kills} of them killed\n"
        f"memory of the process that read all epochs: {memory[early]:.0f} MB after {early + 1} of them, "
        f"{memory[-1]:.0f} MB after all\n{time.monotonic() - began:.0f} s"
    )


def resident_megabytes() -> float:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def made(place: Path, promoters: int) -> Path:
    """Shards of generated promoters: small records, so that windows and shards are many."""
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
