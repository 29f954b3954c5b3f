import os
import shutil
import socket
import subprocess
import sys

import pytest

from pipeline.shards.index import read_index
from tests.conftest import ROOT

pytestmark = pytest.mark.processes

RANK = """
import os, sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
from model.distributed.consensus import make_error_consensus, make_fact_exchange
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream
if os.environ["LANES"] != "1":
    import pipeline.stream.stream as stream_module
    stream_module.count_lanes = lambda *_: int(os.environ["LANES"])
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
mine, agree = RankSlice(rank, 2), make_error_consensus(rank)
stream = ShardStream(folder, read_index(folder), "finetune/train", 32, mine, seed=1, agree=agree,
    exchange=make_fact_exchange(rank))
steps = 0
try:
    for epoch in range(3):
        for step in stream.epoch(epoch):
            steps += 1
            part = step.micro_batches[0]
            assert len(part.global_lengths) == part.global_rows
            assert (part.global_lengths[part.first_row :][: len(part.id)] == part.lengths)[part.weight > 0].all()
            dist.barrier()  # stands for a training step, which no rank completes alone
    print(steps, "complete")
except UserError as error:
    print(steps, error)
dist.destroy_process_group()
"""


def run_ranks(*folders, lanes=1):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    variables = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "PYTHONPATH": str(ROOT),
        "LANES": str(lanes),
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(folder)],
            env={**os.environ, **variables, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]
    return [process.communicate(timeout=90)[0].strip() for process in ranks]


@pytest.mark.parametrize("lanes", [1, 4])
def test_corrupt_shard_of_one_rank_ends_all_ranks(made, tmp_path, lanes):
    shutil.copytree(made.shards, tmp_path / "k3")
    shard = read_index(made.shards).splits["finetune/train"][-1]
    path = tmp_path / "k3" / shard.file
    data = bytearray(path.read_bytes())
    data[shard.records[-1].offset + 700] ^= 1
    path.write_bytes(data)
    intact, corrupt = run_ranks(made.shards, tmp_path / "k3", lanes=lanes)
    assert intact.split(" ", 1)[0] == corrupt.split(" ", 1)[0]  # the same number of steps
    assert f"{shard.file}: record {len(shard.records) - 1}, bytes" in corrupt
    assert intact.split(" ", 1)[1] == "rank 1: " + corrupt.split(" ", 1)[1]


def test_intact_shards_are_read_to_the_end(made):
    for lanes in (1, 4):
        assert run_ranks(made.shards, made.shards, lanes=lanes) == ["114 complete"] * 2
