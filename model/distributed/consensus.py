"""Consensus of all ranks: equal inputs before the first step, and an error in one rank's data raised on every rank."""

import socket
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from model.config import Config
from model.distributed.process_group import all_gather
from model.runs.fingerprint import collect_facts, find_differences, format_differences
from pipeline.errors import UserError
from pipeline.shards.index import Index
from pipeline.stream.stream import ErrorConsensus, FactExchange
from pipeline.tokens.kmers import Numbers

_HIGHEST = 2**62
"""Above every fact."""


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
    group = _make_host_group()

    def agree(problem: str | None) -> str | None:
        failed = torch.tensor(problem is not None, dtype=torch.uint8)
        dist.all_reduce(failed, dist.ReduceOp.MAX, group=group)
        return _gather_problem(rank, problem, group) if failed else None

    return agree


def make_fact_exchange(rank: int) -> FactExchange:
    """Make the function with which a stream also shares integers, such as the lengths of its promoters.

    If all of them are equal, one small reduction is enough; else each rank sends its own to all.
    """
    group = _make_host_group()

    def exchange(problem: str | None, facts: Numbers | None, counts: Numbers) -> tuple[str | None, Numbers]:
        if facts is None or not len(facts):
            facts = np.empty(0, np.int64)
        low, high = (int(facts.min()), int(facts.max())) if len(facts) else (_HIGHEST, 0)
        extremes = torch.tensor([problem is not None, high, -low])
        dist.all_reduce(extremes, dist.ReduceOp.MAX, group=group)
        failed, high, low = bool(extremes[0]), int(extremes[1]), -int(extremes[2])
        if failed:
            return _gather_problem(rank, problem, group), np.zeros(1, np.int64)
        if low == high:
            return None, np.array([low])
        dtype = np.int32 if high < 2**31 else np.int64
        own = torch.zeros(int(counts.max()), dtype=torch.int32 if high < 2**31 else torch.int64)
        own[: len(facts)] = torch.from_numpy(facts.astype(dtype))
        parts = [torch.empty_like(own) for _ in counts]
        dist.all_gather(parts, own, group=group)
        joined = [part.numpy()[:count] for part, count in zip(parts, counts.tolist(), strict=True)]
        return None, np.concatenate(joined).astype(np.int64)

    return exchange


def _make_host_group() -> Any:
    """Make a group of all ranks for tensors on the host. None is the default group."""
    return dist.new_group(backend="gloo") if dist.get_backend() != "gloo" else None


def _gather_problem(rank: int, problem: str | None, group: Any) -> str:
    """Gather the first error of any rank. At least one rank has one."""
    problems: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, None if problem is None else f"rank {rank}: {problem}", group=group)
    return next(text for text in problems if text is not None)
