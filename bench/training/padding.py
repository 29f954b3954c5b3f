"""Count the padding of the GPU preset's batches on measured promoters, and the time of the cut on the host.

    python -m bench.training.padding train_sequences.txt

The first column of the file holds the promoters, with adapters. Batches of 4,096 are drawn at random.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from bench.measure import markdown
from model.bert.length_cut import ModelInput, cut_by_length
from model.config import load_config
from pipeline.paths import ROOT

BATCHES, RANKS = 20, (1, 2, 4, 16)
HEAD = ["", "ranks", "uncut", "cut", "without a mask", "passes", "ms per cut"]


def count(lengths: np.ndarray, read: ModelInput, batch: int, ranks: int) -> list[str]:
    """Count padded tokens relative to the promoters' own, before and after the cut, for one rank."""
    random = np.random.default_rng(0)
    uncut = padded = real = full = passes = seconds = 0.0
    for _ in range(BATCHES):
        drawn = random.choice(lengths, batch)
        own, width = drawn[: batch // ranks], read.width(int(drawn.max()))
        began = time.process_time()
        cut = cut_by_length(own, width, read)
        seconds, passes = seconds + time.process_time() - began, passes + len(cut)
        for one in cut:
            tokens = (len(own) if one.rows is None else len(one.rows)) * (one.width // read.k + 2)
            padded, full = padded + tokens, full + tokens * one.is_full
        uncut += len(own) * (width // read.k + 2)
        real += sum(((own - frame) // read.k + 2).sum() for frame in range(read.k)) / read.k
    return [
        str(ranks), f"{uncut / real:.4f}", f"{padded / real:.4f}", f"{full / padded:.0%}", f"{passes / BATCHES:.1f}",
        f"{seconds / BATCHES * 1e3:.1f}",
    ]  # fmt: skip


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("rows", type=Path, help="text file with promoters in its first column")
    config = load_config(ROOT / "configs" / "h200.yaml")
    assay, k = config.assay, config.shards.k
    added = 2 * assay.flank - len(assay.left_adapter) - len(assay.right_adapter)
    lines = cli.parse_args().rows.read_text().splitlines()
    lengths = np.array([len(line.partition("\t")[0]) + added for line in lines])
    device = torch.device("cuda")
    rows = [
        [stage, *count(lengths, ModelInput("frames", k, frames, device), config.finetune.global_batch, ranks)]
        for stage, frames in (("fine-tuning", k), ("pretraining", 1))
        for ranks in RANKS
    ]
    print(markdown(HEAD, rows))


if __name__ == "__main__":
    main()
