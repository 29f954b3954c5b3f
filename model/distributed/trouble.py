"""One rank's trouble with its data becomes every rank's error, so that none waits for the others' gradients."""

import torch
import torch.distributed as dist

from pipeline.stream.stream import ErrorConsensus


def agreeing(rank: int) -> ErrorConsensus:
    """What a stream asks before each block of steps: what is wrong on this rank, or None -> what is wrong on any.

    All ranks call this and what it returns. One number goes round, over the host's network: asking the device would
    make it wait for the steps that it still has to do.
    """
    group = dist.new_group(backend="gloo") if dist.get_backend() != "gloo" else None

    def agree(problem: str | None) -> str | None:
        wrong = torch.tensor(problem is not None, dtype=torch.uint8)
        dist.all_reduce(wrong, dist.ReduceOp.MAX, group=group)
        if not wrong:
            return None
        told: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(told, None if problem is None else f"rank {rank}: {problem}", group=group)
        return next(text for text in told if text is not None)

    return agree
