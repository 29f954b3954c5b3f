"""Cost of run.deterministic=true: CPU time of steps with and without deterministic kernels, in turn, on one core.

    python -m bench.training.deterministic [key=value ...]

The paper's model on synthetic promoters, in float32, 8 promoters per step. The median of the ratios of pairs of steps
is shown, with the range of its middle half.
"""

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from bench.measure import markdown
from bench.training.bench_train import full_steps, make_shards, synthetic_config
from model.bert.build import build_task
from model.bert.rng import deterministic_kernels
from model.config import STAGES, Config, StageName, load_config
from model.distributed.process_group import World, init_group, leave_group
from model.training.ds_config import DEFAULT_DS_CONFIG, read_ds_config
from model.training.engine import start_engine
from pipeline.paths import shipped
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.stream.stream import RankSlice, ShardStream

PAIRS, ROWS = 7, 2000
BATCH = ("pretrain.global_batch=8", "finetune.global_batch=8", "finetune.start=scratch")


def measure(config: Config, stage: StageName, world: World) -> list[str]:
    """Take pairs of steps, and compare their CPU time. The first pair is not counted."""
    index = read_index(shard_folder(config))
    task, settings = build_task(config, index, stage), read_ds_config(DEFAULT_DS_CONFIG, cuda=False)
    engine = start_engine(stage, config.stage(stage), task, settings, world, 0)
    engine.deepspeed.train()
    batch, sums = config.stage(stage).global_batch, torch.zeros(3, dtype=torch.float64)
    stream = ShardStream(shard_folder(config), index, f"{stage}/train", batch, RankSlice())
    seconds = np.zeros((1 + PAIRS, 2))
    with closing(full_steps(stream)) as steps:
        for pair in range(1 + PAIRS):
            step = next(steps)
            for enabled in (0, 1) if pair % 2 else (1, 0):
                with deterministic_kernels(bool(enabled)):
                    began = time.process_time()
                    engine.train_step(step, sums)
                    seconds[pair, enabled] = time.process_time() - began
    plain, exact = np.median(seconds[1:], axis=0)
    low, ratio, high = np.quantile(seconds[1:, 1] / seconds[1:, 0], (0.25, 0.5, 0.75))
    return [stage, f"{1 / plain:.3f}", f"{1 / exact:.3f}", f"{ratio:.3f}", f"{low:.3f} to {high:.3f}"]


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("overrides", nargs="*", metavar="key=value")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = load_config(shipped("config.yaml"), [*BATCH, *cli.parse_args().overrides])
        config = synthetic_config(settings, Path(folder))
        make_shards(config, Path(folder), ROWS)
        world = init_group()
        rows = [measure(config, stage, world) for stage in STAGES]
        leave_group()
    print(markdown(["", "steps per CPU s", "deterministic", "ratio of CPU time", "middle half"], rows))


if __name__ == "__main__":
    main()
