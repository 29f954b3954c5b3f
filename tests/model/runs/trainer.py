"""A trainer in this process, on one rank, and helpers that damage the files of a run."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from model.artifacts.manifest import put_manifest, read_manifest
from model.distributed.process_group import World
from model.training.ds_config import read_ds_config
from model.training.train import train_on_rank
from tests.conftest import ROOT, Made, small_config

RUN = Path("runs/paper")
"""Pretraining has 9 steps, with evaluations and checkpoints at 4, 8 and 9; fine-tuning 38, at 10, 20, 30 and 38."""
PRODUCTS = {"pretrain": "pretrained", "finetune": "model"}


class KilledError(BaseException):
    """Simulated kill -9: nothing is cleaned up."""


def kill():
    """Kill the training that calls this."""
    raise KilledError


@dataclass(frozen=True)
class Trainer:
    """Train in `runs` of the working directory, as train.py does."""

    made: Made
    dataset: Path
    world: World

    def train(self, *overrides, stages="both"):
        config = small_config(self.made.rows.parent, f"dataset.path={self.dataset}", "run.path=runs", *overrides)
        settings = read_ds_config(ROOT / "ds_config.json", cuda=False)
        return train_on_rank(config, settings, self.world, stages)


def weights(run, stage="finetune"):
    return (run / PRODUCTS[stage] / "model.safetensors").read_bytes()


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "model.safetensors has .* expected": lambda folder: cut(folder / "model.safetensors"),
    "model.safetensors has other bytes": lambda folder: flip(folder / "model.safetensors"),
    "config.json has 0 bytes": lambda folder: (folder / "config.json").write_text(""),
    "tokenizer.json is missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "manifest.json is missing": lambda folder: (folder / "manifest.json").unlink(),
    "the folder is missing": shutil.rmtree,
}


def best_checkpoint(run, stage):
    summary = json.loads((run / "summary.json").read_text())
    return run / "checkpoints" / stage / f"step-{summary['training'][stage]['best_step']:09d}"


def run_suggested_fix(error):
    """Run the command of an error message."""
    (command,) = re.findall(r"rm .*?(?=, then)", str(error.value))
    subprocess.run(["sh", "-c", command], check=True)


def make_unfinished(run):
    """Change a finished run to its state after the evaluation at step 30."""
    for name in ("summary.json", "predictions.parquet"):
        (run / name).unlink()
    checkpoints = run / "checkpoints" / "finetune"
    shutil.rmtree(checkpoints / "step-000000038")
    progress = read_manifest(checkpoints / "step-000000030").progress
    put_manifest(run / "model", replace(read_manifest(run / "model"), progress=progress))
