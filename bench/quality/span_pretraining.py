"""Pretraining on hidden spans of bases: for models of overlapping k-mers, which hidden k-mers of one frame do not fit.

    python -m bench.quality.span_pretraining FOLDER --config configs/small.yaml [section.key=value ...]
    python train.py --config configs/small.yaml finetune.start=pretrained finetune.pretrained=FOLDER

Neighbours of an overlapping k-mer reveal it. So spans of bases are hidden, and every k-mer that contains a hidden base
becomes [MASK]. From the state of each masked token, a small network predicts its hidden bases, each by itself: a
softmax over all k-mers would cost more than the rest of the model. It reads all promoters of the dataset but the
held-out ones of fine-tuning, whether or not fine-tuning uses their labels. FOLDER becomes a stock masked language model
from which fine-tuning can start; its output layer is not trained.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from model.bert.build import build_task
from model.bert.kmer_embedding import (
    BASES,
    count_pairs,
    find_composed_embedding,
    read_bases,
    split_composition,
    uniform_pairs,
    write_composition,
)
from model.bert.kmer_statistics import COUNTED
from model.bert.modernbert import encode
from model.config import Config, load_config
from model.training.checkpointing.hf_export import export_model
from pipeline.dataset.database import open_dataset
from pipeline.shards.index import Index
from pipeline.shards.location import find_index
from pipeline.tokens.kmers import CLS, MASK, PAD, SEP, encode_promoters

BATCH, LEARNING_RATE = 64, 2e-3
SPANS, SPAN_BASES = 2, (4, 12)
"""Hidden spans per promoter, and their least and most bases."""
VALIDATED = 1500
"""Promoters that are kept for validation."""


@dataclass(frozen=True)
class Rows:
    """Promoters as tokens. ids: (rows, longest + 2) int64, [CLS] and [SEP] included; lengths: (rows,) int64, bases."""

    ids: torch.Tensor
    lengths: torch.Tensor

    def select(self, rows: torch.Tensor) -> "Rows":
        """Select rows by index: (n,) int64."""
        return Rows(self.ids[rows], self.lengths[rows])


def read_rows(config: Config, k: int) -> Rows:
    """Read all promoters of the dataset that are not held out in fine-tuning, in the order of their ids."""
    with open_dataset(config.dataset.path) as connection:
        table = connection.sql(
            "select sequence from promoters anti join (from finetune where split <> 'train') using (id) order by id"
        ).to_arrow_table()
    tokens = encode_promoters(table["sequence"], config.assay, k)
    lengths = np.diff(tokens.offsets)
    ids = np.full((len(lengths), int(lengths.max()) + 2), PAD, np.int64)
    ids[:, 0] = CLS
    ids[np.arange(len(lengths)), lengths + 1] = SEP
    column = np.arange(ids.shape[1])
    ids[(column > 0) & (column <= lengths[:, None])] = tokens.values
    return Rows(torch.from_numpy(ids), torch.from_numpy(lengths))


class SpanTask(nn.Module):
    """Objective on hidden spans. model: a ModernBERT language model with a composed embedding."""

    def __init__(self, model: Any, k: int) -> None:
        super().__init__()
        width = model.config.hidden_size
        self.model, self.k = model, k
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, BASES * k))

    def forward(self, rows: Rows, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the hidden bases: logits (hidden bases, 4) and bases (hidden bases,), once per token with a base."""
        is_hidden = draw_spans(rows.lengths.numpy(), rows.ids.shape[1] - 2, self.k, generator)
        tokens = rows.ids[:, 1:-1]
        in_kmer = torch.from_numpy(is_hidden).unfold(1, self.k, 1)  # (rows, tokens, k)
        is_masked = in_kmer.any(-1)
        ids = rows.ids.clone()
        ids[:, 1:-1] = torch.where(is_masked, MASK, tokens)
        place = torch.arange(ids.shape[1])
        attention = None if (rows.lengths == rows.lengths.max()).all() else (place <= rows.lengths[:, None] + 1).long()
        row, column = is_masked.nonzero(as_tuple=True)
        states = encode(self.model.base_model, ids, attention)[row, column + 1]
        bases = read_bases(tokens[row, column], self.k)
        counts = in_kmer[row, column] & (bases < BASES)  # N is not predicted
        return self.head(states).view(-1, self.k, BASES)[counts], bases[counts]


def draw_spans(lengths: np.ndarray, width: int, k: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the hidden bases of each row: bool (rows, width + k - 1). They lie inside its `lengths` bases."""
    place = np.arange(width + k - 1)
    is_hidden = np.zeros((len(lengths), len(place)), bool)
    for _ in range(SPANS):
        bases = generator.integers(SPAN_BASES[0], SPAN_BASES[1] + 1, len(lengths))
        start = (generator.random(len(lengths)) * (lengths - bases)).astype(int)
        is_hidden |= (place >= start[:, None]) & (place < (start + bases)[:, None])
    return is_hidden


def fit_embedding(model: Any, rows: Rows, k: int) -> None:
    """Set the counts of the composed embedding from the first promoters."""
    embedding = find_composed_embedding(model)
    assert embedding is not None
    pairs = torch.zeros_like(embedding.pairs)
    for first in range(0, min(COUNTED, len(rows.lengths)), BATCH):
        pairs += count_pairs(rows.ids[first : first + BATCH, 1:-1], rows.lengths[first : first + BATCH], k)
    embedding.pairs.copy_(pairs + uniform_pairs(k))


def train(task: SpanTask, rows: Rows, epochs: int, seed: int) -> dict[str, float]:
    """Train with AdamW and a one-cycle rate. Returns nats per hidden base and accuracy on the validation rows."""
    order = torch.randperm(len(rows.lengths), generator=torch.Generator().manual_seed(seed))
    valid, kept = rows.select(order[:VALIDATED]), order[VALIDATED:]
    steps = len(kept) // BATCH
    optimizer = torch.optim.AdamW(task.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps * epochs, pct_start=0.1)
    generator, shuffle, start = np.random.default_rng(seed), torch.Generator().manual_seed(seed), time.process_time()
    result: dict[str, float] = {}
    for epoch in range(epochs):
        shuffled = kept[torch.randperm(len(kept), generator=shuffle)]
        for step in range(steps):
            loss = F.cross_entropy(*task(rows.select(shuffled[step * BATCH : (step + 1) * BATCH]), generator))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(task.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        result = {**validate(task, valid), "epoch": epoch + 1, "cpu_seconds": round(time.process_time() - start)}
        print(json.dumps(result), flush=True)
    return result


@torch.inference_mode()
def validate(task: SpanTask, rows: Rows) -> dict[str, float]:
    """Score the predictions of hidden bases, with the same spans each time."""
    generator = np.random.default_rng(0)
    batches = [torch.arange(len(rows.lengths))[first : first + 500] for first in range(0, len(rows.lengths), 500)]
    parts = [task(rows.select(part), generator) for part in batches]
    logits, bases = (torch.cat(each) for each in zip(*parts, strict=True))
    frequent = torch.bincount(bases).max() / len(bases)
    return {
        "nats_per_base": F.cross_entropy(logits, bases).item(),
        "accuracy": (logits.argmax(-1) == bases).float().mean().item(),
        "most_frequent_base": frequent.item(),
    }


def export(task: SpanTask, config: Config, index: Index, folder: Path) -> None:
    """Write the encoder as a stock masked language model."""
    weights = {name: value.detach().clone() for name, value in task.model.named_parameters()}
    stock, network = split_composition(task.model, weights)
    export_model(type(task.model)(task.model.config), stock, config, index, folder)
    write_composition(folder, network)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path, help="folder of the model to write")
    cli.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides of the configuration")
    cli.add_argument("--config", type=Path, required=True, help="such as configs/small.yaml")
    cli.add_argument("--epochs", type=int, default=5, help="default: 5")
    args = cli.parse_intermixed_args()
    config = load_config(args.config, args.overrides)
    if config.model.architecture != "modernbert" or config.model.kmer_embedding != "composed":
        cli.error("expected a ModernBERT with composed k-mers; fix: --config configs/small.yaml")
    index = find_index(config)
    torch.manual_seed(config.run.seed)
    task = SpanTask(build_task(config, index, "pretrain").model, index.k)
    rows = read_rows(config, index.k)
    fit_embedding(task.model, rows, index.k)
    train(task, rows, args.epochs, config.run.seed)
    export(task, config, index, args.folder)


if __name__ == "__main__":
    main()
