"""Statistics of a composed k-mer embedding: base counts of the training split, summed over all ranks."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist

from model.bert.device_batch import to_device
from model.bert.kmer_embedding import count_pairs, find_composed_embedding, uniform_pairs
from pipeline.stream.stream import Step

COUNTED = 4096
"""Promoters of the training split whose bases are counted."""


def fit_embedding(task: torch.nn.Module, steps: Iterable[Step], device: torch.device) -> None:
    """Set the counts of a composed embedding, if the task has one, from the first COUNTED promoters of a split.

    All ranks call this. steps: of the training split, in the same order when a run is resumed.
    """
    embedding = find_composed_embedding(task)
    if embedding is None:
        return
    pairs = torch.zeros_like(embedding.pairs, device=device)
    for step in steps:
        for batch in step.micro_batches:
            tokens = to_device(batch.tokens.astype(np.int32), device)
            lengths = to_device(np.where(batch.weight > 0, batch.lengths, 0), device)
            pairs += count_pairs(tokens, lengths, embedding.k)
        if step.consumed >= COUNTED:
            break
    dist.all_reduce(pairs)
    # A few random k-mers are added, so that no count is zero.
    embedding.pairs.copy_(pairs.to(embedding.pairs.device) + uniform_pairs(embedding.k))
