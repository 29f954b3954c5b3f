"""Statistics of composed k-mer embeddings: base counts of the training split and of each global batch.

They are sums of integers over all ranks, so they do not depend on how the rows are split.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist

from model.bert.device_batch import to_device
from model.bert.kmer_embedding import count_pairs, find_composed_embedding, uniform_pairs
from pipeline.stream.stream import Batch, Step

COUNTED = 4096
"""Promoters of the training split whose bases are counted."""


def fit_embedding(task: torch.nn.Module, steps: Iterable[Step], device: torch.device) -> None:
    """Set the counts of a composed embedding, if the task has one, from the first COUNTED promoters of a split.

    All ranks call this. steps: of the training split, in the same order when a run is resumed.
    """
    embedding = find_composed_embedding(task)
    if embedding is None:
        return
    batches: list[Batch] = []
    for step in steps:
        batches += step.micro_batches
        if step.consumed >= COUNTED:
            break
    embedding.pairs.copy_(_count_over_ranks(batches, embedding.k, device))


def set_batch_statistics(task: torch.nn.Module, batches: Iterable[Batch], device: torch.device) -> None:
    """Set the counts of the global batch in a composed embedding, if the task trains one. All ranks call this.

    batches: micro-batches of this rank.
    """
    embedding = find_composed_embedding(task)
    if embedding is not None and embedding.bases.requires_grad:
        embedding.batch_pairs.copy_(_count_over_ranks(batches, embedding.k, device))


def _count_over_ranks(batches: Iterable[Batch], k: int, device: torch.device) -> torch.Tensor:
    """Count the pairs of bases of all ranks, and those of a few random k-mers, so that no count is zero."""
    pairs = torch.zeros_like(uniform_pairs(k), device=device)
    for batch in batches:
        tokens = to_device(batch.tokens.astype(np.int32), device)
        lengths = to_device(np.where(batch.weight > 0, batch.lengths, 0), device)
        pairs += count_pairs(tokens, lengths, k)
    dist.all_reduce(pairs)
    return pairs + uniform_pairs(k).to(device)
