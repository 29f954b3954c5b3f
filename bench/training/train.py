"""Training with one and two processes beside a Hugging Face Trainer of the same model, batches and precision.

    python -m bench.training.train [--times 3]

Fine-tuning from scratch in float32, a thread a process: batches of 64 promoters, three reading frames each, BERT of 2
layers and width 128, dropout 0.1, fused Adam. The Trainer gets ready token arrays in memory and
DistributedDataParallel; ours is train.py itself, which reads its shards and evaluates and saves after the measured
steps. A table of promoters a second on the clock, promoters for a second of CPU time of all processes (which other work
on the machine changes less), time from the start of the processes to the end of the first step, and peak memory of a
process.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from bench.measure import answer, in_turn, markdown

from model.bert.frames import reading_frames
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
FORMS = {"promoter-bert": "ours", "Hugging Face Trainer": "trainer"}


def prepare(work: Path) -> None:
    """Dataset and shards, and the same promoters as arrays."""
    (work / "bench.yaml").write_text(yaml.safe_dump(SETTINGS))
    command = str(Path(sys.executable).with_name("promoter-bert"))
    for words in (["generate", "rows.tsv", "--rows", str(ROWS)], ["build", "rows.tsv"], ["shards"]):
        config = [] if words[0] == "generate" else ["--config", "bench.yaml"]
        subprocess.run([command, *words, *config], cwd=work, check=True, capture_output=True)
    config = load_config(work / "bench.yaml", [f"shards.path={work}/shards"])
    folder = shard_folder(config)
    index = read_index(folder)
    (step,) = ShardStream(folder, index, "finetune/train", ROWS, RankSlice()).epoch(0)
    (batch,) = step.micro_batches
    frames = reading_frames(torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths), config.shards.k)
    labels = (batch.expression - index.label_mean) / index.label_sd
    np.savez(work / "ready.npz", ids=frames.input_ids.numpy(), mask=frames.attention_mask.numpy(), labels=labels)


def measured(work: Path, form: str, processes: int) -> dict[str, float]:
    """One run of a form of train_contenders.py."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return answer([*launch, "--module", "bench.training.train_contenders", form, str(work)])


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--times", type=int, default=3)
    times = cli.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work)
        forms = {
            f"{name}, {processes} process{'es' if processes > 1 else ''}": (
                lambda form=form, processes=processes: measured(work, form, processes)
            )
            for processes in (1, 2)
            for name, form in FORMS.items()
        }
        found = in_turn(forms, times)
    rows = [
        [
            name,
            f"{f['promoters_per_second']:,.0f}",
            f"{f['promoters_per_cpu_second']:,.0f}",
            f"{f['first_step']:.1f}",
            f"{f['gigabytes']:.2f}",
        ]
        for name, f in found.items()
    ]
    print(markdown(["", "promoters/s", "promoters/CPU s", "first step after s", "peak GB a process"], rows))


if __name__ == "__main__":
    main()
