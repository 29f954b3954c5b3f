"""Load converted checkpoints whose step counts are float64, and write what the optimizer then holds as JSON.

Run by test_resharding.py as one rank. DeepSpeed rejects fp16 on a CPU; its check is patched here.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from deepspeed.accelerator import get_accelerator

from model.artifacts.manifest import Layout
from model.bert.build import build_task
from model.config import Config
from model.distributed.process_group import init_group, leave_group
from model.muon.compilation import torch_compile
from model.training.checkpointing.checkpoints import Checkpoints, StageState
from model.training.checkpointing.reshard import convert
from model.training.ds_config import read_ds_config
from model.training.engine import start_engine
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.stream.stream import RankSlice, ShardStream
from tests.model.training.zero_and_precision import PRECISIONS

PLANTED_STEP = 7.0
SOURCES = {1: (1, 2), 3: (3,)}
"""ZeRO stages that can read a checkpoint of each stage."""
OTHER_PRECISION = {"fp32": "fp16", "bf16": "fp32", "fp16": "fp32"}
"""Precision of the checkpoint that a run of each precision reads."""


class Stage:
    """Engine of fine-tuning at a ZeRO stage and precision, with its checkpoints."""

    def __init__(self, config, world, zero, precision, universal=False, optimizer="adam"):
        values = {"train_micro_batch_size_per_gpu": 32, "zero_optimization": {"stage": zero}, **PRECISIONS[precision]}
        Path("ds.json").write_text(json.dumps(values))
        settings = read_ds_config(Path("ds.json"), cuda=True)
        self.index = read_index(shard_folder(config))
        torch.manual_seed(1)
        task = build_task(config, self.index, "finetune")
        stage = config.finetune.model_copy(update={"optimizer": optimizer})
        self.engine = start_engine("finetune", stage, task, settings, world, 0, universal)
        self.engine.deepspeed.train()
        best = SimpleNamespace(checkpoints=Path.cwd())
        self.checkpoints = Checkpoints(self.engine, best, Layout(1, zero, precision), config.run, lambda _: None)
        self.config = config

    def train(self):
        stream = ShardStream(shard_folder(self.config), self.index, "finetune/train", 32, RankSlice(), seed=0)
        sums = torch.zeros(3, dtype=torch.float64)
        self.engine.train_step(next(stream.epoch(0)), sums)
        return float(sums[0])


def save(stage, tag):
    """Save a checkpoint of a stage. Returns its path."""
    state = {"stage_state": StageState(step=1, learning_rate=1e-3).__dict__}
    state["stage_state"]["plateau"] = stage.engine.rate.plateau.state_dict()
    stage.engine.deepspeed.save_checkpoint(".", tag, state, save_latest=False)
    return Path.cwd() / tag


def convert_muon(config, world):
    """Convert a checkpoint with Muon from ZeRO 1 to 2."""
    stage = Stage(config, world, 1, "fp32", optimizer="muon")
    stage.train()
    saved = save(stage, "muon")
    files = {file: file.read_bytes() for file in saved.rglob("*") if file.is_file()}
    weights = [weight.detach().clone() for weight in stage.engine.task.parameters()]
    loss = stage.train()
    stage.engine.deepspeed.destroy()
    converted = convert(saved)
    left = sorted(file.name for file in (*Path.cwd().glob(".*"), *converted.parent.iterdir()))
    stage = Stage(config, world, 2, "fp32", universal=True, optimizer="muon")
    stage.checkpoints.load(converted)
    optimizer = stage.engine.deepspeed.basic_optimizer
    result = {
        "intact": all(file.read_bytes() == content for file, content in files.items()),
        "left": left,
        "weights": all(map(torch.equal, stage.engine.task.parameters(), weights)),
        "loaded": sorted(sorted(values) for values in optimizer.state.values()),
        "rates": [group["lr"] for group in optimizer.param_groups],
        "losses": [loss, stage.train()],
        "trained": sorted(sorted(values) for values in optimizer.state.values()),
    }
    stage.engine.deepspeed.destroy()
    return result


def plant(universal):
    """Replace the step counts in the files of a converted checkpoint by a float64 tensor. Returns their number."""
    files = list((universal / "zero").glob("*/step.pt"))
    step = torch.tensor(PLANTED_STEP, dtype=torch.float64)
    for file in files:
        torch.save(step, file)
    whole = universal / "zero" / "optimizer_state.pt"
    state = torch.load(whole, weights_only=False)
    for values in state.get("optimizer_state_dict", {}).get("state", {}).values():
        values["step"] = step
        files.append(whole)
    torch.save(state, whole)
    return len(files)


def main():
    config = Config.model_validate_json(Path(sys.argv[1]).read_text())
    world = init_group()
    type(get_accelerator()).is_fp16_supported = lambda _: True
    results = {}
    for source, targets in SOURCES.items():
        for zero in targets:
            for precision in PRECISIONS:
                stage = Stage(config, world, source, OTHER_PRECISION[precision])
                stage.train()
                tag = f"from-{source}-to-{zero}-{precision}"
                saved = save(stage, tag)
                stage.engine.deepspeed.destroy()
                converted = convert(saved)
                planted = plant(converted)
                stage = Stage(config, world, zero, precision, universal=True)
                stage.checkpoints.load(converted)
                states = stage.engine.deepspeed.basic_optimizer.state
                steps = [torch.as_tensor(values["step"]) for values in states.values()]
                results[f"{zero} {precision}"] = {
                    "planted": planted,
                    "types": sorted({str(step.dtype) for step in steps}),
                    "on_device": all(s["step"].device == p.device for p, s in states.items()),
                    "shared": len(steps) - len({step.data_ptr() for step in steps}),
                    "values": sorted({float(step) for step in steps}),
                    "scale": stage.engine.loss_scale,
                    "dynamic": bool(stage.engine.deepspeed.optimizer.dynamic_loss_scale),
                    "loss": stage.train(),
                    "next": sorted({float(values["step"]) for values in states.values()}),
                }
                stage.engine.deepspeed.destroy()
    with torch_compile(False):
        results["muon"] = convert_muon(config, world)
    Path("results.json").write_text(json.dumps(results, indent=1))
    leave_group()


if __name__ == "__main__":
    main()
