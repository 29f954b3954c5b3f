"""Run by test_zero_and_precision.py in several processes: the first losses at each ZeRO stage and precision, as JSON.

Each stage compiled, too; the backend stops before code is generated, which would take a compiler and minutes.

DeepSpeed refuses fp16 on a CPU by one question to its accelerator; the answer is changed here, so that its scaling of
the loss runs as on a GPU.
"""

import gc
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from deepspeed.accelerator import get_accelerator

from model.bert.build import regression_model
from model.bert.objectives import FinetuneTask
from model.config import Config
from model.distributed.process_group import start, stop, sums_over_ranks
from model.training.engine import loss_scale, make_engine, make_optimizer, read_ds_config
from model.training.loop import train_step
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.stream.stream import RankSlice, ShardStream

STEPS, COMPILED_STEPS = 20, 5
PRECISIONS = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True}},
    "fp16": {"fp16": {"enabled": True, "loss_scale": 0, "initial_scale_power": 12, "hysteresis": 1}},
}


class Losses:
    """In the meter's place: the loss of each step over all ranks."""

    def __init__(self):
        self.losses = []
        self.sums = torch.zeros(2, dtype=torch.float64)

    def add(self, loss, count, correct):
        self.sums += torch.stack([loss.double(), count.double()])

    def add_step(self, step):
        loss, count = sums_over_ranks(*self.sums)
        self.losses.append(loss / count)
        self.sums.zero_()


def first_losses(config, world, zero, precision, learning_rate=None, compiled=False):
    """Losses, steps not applied, scale of the loss, what ended the run, if anything, and how often the device was
    waited for."""
    file = Path(f"ds-{world.rank}.json")
    zero_optimization = {"stage": zero, **({"stage3_param_persistence_threshold": 0} if zero == 3 else {})}
    file.write_text(
        json.dumps(
            {"train_micro_batch_size_per_gpu": 8, "zero_optimization": zero_optimization, **PRECISIONS[precision]}
        )
    )
    settings = read_ds_config(file, cuda=True)
    index = read_index(shard_folder(config))
    torch.manual_seed(1)
    task = FinetuneTask(regression_model(config, index, None), index.k, index.label_mean, index.label_sd)
    stage = config.finetune
    if learning_rate is not None:
        stage = stage.model_copy(update={"learning_rate": learning_rate})
    optimizer = make_optimizer(task, stage, decoupled=False)
    plan = settings.plan(stage.global_batch, world.ranks)
    engine = make_engine(task, optimizer, settings, plan, world)
    if compiled:
        torch._dynamo.reset()
        engine.compile(backend="aot_eager")
    engine.train()
    run = SimpleNamespace(engine=engine, world=world, run=config.run, name="finetune", plan=plan)
    stream = ShardStream(
        shard_folder(config), index, "finetune/train", stage.global_batch,
        RankSlice(world.rank, world.ranks, plan.micro_batches), seed=0,
    )  # fmt: skip
    meter = Losses()
    gc.collect()  # engines before, at whose end the device is waited for
    problem, waits = "", []
    accelerator = type(get_accelerator())
    accelerator.synchronize = lambda *_: waits.append(1)
    try:
        for step in itertools.islice(stream.epoch(0), COMPILED_STEPS if compiled else STEPS):
            train_step(run, step, meter)
    except UserError as error:
        problem = str(error)
    found = {
        "losses": meter.losses,
        "skipped": int(engine.skipped_steps),
        "scale": loss_scale(engine),
        "problem": problem,
        "waits": len(waits),
    }
    engine.destroy()
    return found


def main():
    config = Config.model_validate_json(Path(sys.argv[1]).read_text())
    world = start()
    type(get_accelerator()).is_fp16_supported = lambda _: True
    found = {f"{zero} {p}": first_losses(config, world, zero, p) for zero in range(4) for p in PRECISIONS}
    found |= {f"{zero} compiled": first_losses(config, world, zero, "fp32", compiled=True) for zero in range(4)}
    found["overflow"] = first_losses(config, world, 1, "fp16", learning_rate=1e20)
    if world.is_rank0:
        Path("found.json").write_text(json.dumps(found))
    stop()


if __name__ == "__main__":
    main()
