"""Training rate with one and two processes: promoter-bert and the Hugging Face Trainer with the same model and batches.

    python -m bench.training.train [--times 3]

Fine-tuning from scratch in float32, one thread per process: batches of 64 promoters with three reading frames each,
BERT of 2 layers and hidden size 128, dropout 0.1, fused Adam. The Trainer gets token arrays in memory and uses
DistributedDataParallel. promoter-bert runs train.py, which reads its shards, and evaluates and saves after the measured
steps. Columns: promoters per second; promoters per CPU second of all processes (less affected by other work on the
machine); seconds from the start of the processes to the end of the first step; peak memory per process.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml

from bench.measure import COMMAND, markdown, medians, run_json
from model.bert.frames import cut_reading_frames
from model.config import load_config
from pipeline.paths import ROOT
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.stream.stream import RankSlice, ShardStream

ROWS, BATCH = 6000, 64
SETTINGS = {
    "base": str(ROOT / "config.yaml"),
    "assay": {"flank": 0},
    "dataset": {"finetune_valid": 0.02, "finetune_test": 0.02, "pretrain_valid": 0.5},
    "model": {"hidden": 128, "layers": 2, "heads": 4, "intermediate": 512},
    "finetune": {"start": "scratch", "global_batch": BATCH, "max_epochs": 0.5, "evaluate_every": 0.5},
}
CONTENDERS = {"promoter-bert": "ours", "Hugging Face Trainer": "trainer"}


def prepare(work: Path) -> None:
    """Write dataset and shards, and the same promoters as token arrays."""
    (work / "bench.yaml").write_text(yaml.safe_dump(SETTINGS))
    for arguments in (["generate", "rows.tsv", "--rows", str(ROWS)], ["build", "rows.tsv"], ["shards"]):
        preset = [] if arguments[0] == "generate" else ["--config", "bench.yaml"]
        subprocess.run([COMMAND, *arguments, *preset], cwd=work, check=True, capture_output=True)
    config = load_config(work / "bench.yaml", [f"shards.path={work}/shards"])
    folder = shard_folder(config)
    index = read_index(folder)
    (step,) = ShardStream(folder, index, "finetune/train", ROWS, RankSlice()).epoch(0)
    (batch,) = step.micro_batches
    frames = cut_reading_frames(torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths), config.shards.k)
    labels = (batch.expression - index.label_mean) / index.label_sd
    np.savez(work / "ready.npz", ids=frames.input_ids.numpy(), mask=frames.attention_mask.numpy(), labels=labels)


def train(work: Path, contender: str, processes: int) -> dict[str, float]:
    """Run a contender of train_contenders.py."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return run_json([*launch, "--module", "bench.training.train_contenders", contender, str(work)])


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--times", type=int, default=3, help="repetitions; default: 3")
    times = cli.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work)
        contenders = {
            f"{name}, {processes} process{'es' if processes > 1 else ''}": (
                lambda key=key, processes=processes: train(work, key, processes)
            )
            for processes in (1, 2)
            for name, key in CONTENDERS.items()
        }
        rates = medians(contenders, times)
    rows = [
        [
            name,
            f"{f['promoters_per_second']:,.0f}",
            f"{f['promoters_per_cpu_second']:,.0f}",
            f"{f['first_step']:.1f}",
            f"{f['gigabytes']:.2f}",
        ]
        for name, f in rates.items()
    ]
    print(markdown(["", "promoters/s", "promoters/CPU s", "first step after s", "peak GB per process"], rows))


if __name__ == "__main__":
    main()
