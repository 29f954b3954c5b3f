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
from model.distributed.consensus import make_error_consensus
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
mine, agree = RankSlice(rank, 2), make_error_consensus(rank)
stream = ShardStream(folder, read_index(folder), "finetune/train", 32, mine, seed=1, agree=agree)
steps = 0
try:
    for epoch in range(3):
        for step in stream.epoch(epoch):
            steps += 1
            dist.barrier()  # stands for a training step, which no rank completes alone
    print(steps, "complete")
except UserError as error:
    print(steps, error)
dist.destroy_process_group()
"""


def run_ranks(*folders):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
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


def test_corrupt_shard_of_one_rank_ends_all_ranks(made, tmp_path):
    shutil.copytree(made.shards, tmp_path / "k3")
    shard = read_index(made.shards).splits["finetune/train"][-1]
    path = tmp_path / "k3" / shard.file
    data = bytearray(path.read_bytes())
    data[shard.records[-1].offset + 700] ^= 1
    path.write_bytes(data)
    intact, corrupt = run_ranks(made.shards, tmp_path / "k3")
    assert intact.split(" ", 1)[0] == corrupt.split(" ", 1)[0]  # the same number of steps
    assert f"{shard.file}: record {len(shard.records) - 1}, bytes" in corrupt
    assert intact.split(" ", 1)[1] == "rank 1: " + corrupt.split(" ", 1)[1]


def test_intact_shards_are_read_to_the_end(made):
    assert run_ranks(made.shards, made.shards) == ["114 complete"] * 2
