"""Consensus of all ranks: equal inputs before the first step, and an error in one rank's data raised on every rank."""

import socket
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from model.config import Config
from model.distributed.process_group import all_gather
from model.runs.fingerprint import collect_facts, find_differences, format_differences
from pipeline.errors import UserError
from pipeline.shards.index import Index
from pipeline.stream.stream import ErrorConsensus


def agree_on_index(config: Config, ds_config: Mapping[str, Any], index: Index | None) -> Index:
    """Check that all ranks have the same shards, configuration and software; return this host's shard index.

    All ranks must call this, each with its own configuration and index. Raises UserError on every rank, with a list of
    all differences.
    """
    if by_kind := find_differences(all_gather((socket.gethostname(), collect_facts(config, ds_config, index)))):
        raise UserError(format_differences(by_kind))
    assert index is not None  # rank 0 has checked its own, and all are equal
    return index


def make_error_consensus(rank: int) -> ErrorConsensus:
    """Make the function with which a stream shares its errors before each block of steps.

    The function takes this rank's error or None, and returns the first error of any rank or None. All ranks must call
    it. It uses gloo, as an exchange on the device would wait for all queued steps.
    """
    group = dist.new_group(backend="gloo") if dist.get_backend() != "gloo" else None

    def agree(problem: str | None) -> str | None:
        failed = torch.tensor(problem is not None, dtype=torch.uint8)
        dist.all_reduce(failed, dist.ReduceOp.MAX, group=group)
        if not failed:
            return None
        problems: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(problems, None if problem is None else f"rank {rank}: {problem}", group=group)
        return next(text for text in problems if text is not None)

    return agree
