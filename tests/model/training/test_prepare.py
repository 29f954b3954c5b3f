"""Checks before a training."""

import shutil

import pytest
import torch

from model.distributed.process_group import World
from model.training.prepare import TrainingRun, check_held_out
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.shards.verify import check_splits
from pipeline.stream.sources import LocalShards
from pipeline.stream.stream import ShardStream


def test_damage_of_held_out_shards_is_found_with_the_command_that_mends_it(made, tmp_path):
    copy = tmp_path / "k3"
    shutil.copytree(made.shards, copy)
    index, command = read_index(copy), "promoter-bert shards --config my.yaml"
    check_splits(copy, index, index.splits, command)
    file = copy / index.splits["finetune/test"][0].file
    data = bytearray(file.read_bytes())
    data[index.splits["finetune/test"][0].records[0].offset + 700] ^= 1
    file.write_bytes(data)
    check_splits(copy, index, [split for split in index.splits if split != "finetune/test"], command)
    world = World(0, 1, torch.device("cpu"))
    run = TrainingRun(LocalShards(copy, command), index, world, 0, None, made.config, None)
    stream = ShardStream(run.shards, index, "finetune/test", 32, shuffle=False)
    for check in (lambda: check_held_out(run, "finetune"), lambda: list(stream.epoch(0))):
        with pytest.raises(UserError, match=r"finetune/test.*expected CRC-32") as error:
            check()
        assert str(error.value).endswith(f"; fix: rm {file}, then {command}")
    check_held_out(run, "pretrain")
