"""Agreement of all ranks: the same inputs before the first step, and one rank's data error as every rank's error."""

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


def agreed_index(config: Config, ds_config: Mapping[str, Any], index: Index | None) -> Index:
    """Return this host's shard index if all ranks have the same shards, configuration and software.

    Every rank must call this with its own configuration and index. Raises UserError on every rank with the list of all
    differences.
    """
    if by_kind := find_differences(all_gather((socket.gethostname(), collect_facts(config, ds_config, index)))):
        raise UserError(format_differences(by_kind))
    assert index is not None  # as on rank 0, which has checked its own
    return index


def error_consensus(rank: int) -> ErrorConsensus:
    """Make the function by which a stream shares its errors before each block of steps.

    The function takes this rank's error, or None, and returns the first error of any rank. All ranks must call it.
    The exchange is one number over the host's network: on the device it would wait for the queued steps.
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
