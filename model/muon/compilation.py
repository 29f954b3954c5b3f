"""Switch of torch.compile for a training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

VARIABLE = "TORCHDYNAMO_DISABLE"
"""Environment variable of torch: with 1, torch.compile returns functions unchanged."""


@contextmanager
def torch_compile(enabled: bool) -> Iterator[None]:
    """Let torch.compile have an effect in a block, or not. enabled: `model.compile`; true changes nothing.

    DeepSpeed decorates the functions of Muon with torch.compile when an engine starts, whatever the optimizer. Without
    model.compile, Muon would then need a C++ compiler, and each rank would load torch's compiler, which takes a second.
    """
    if enabled:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"  # for functions that are decorated in the block
    try:
        with torch.compiler.set_stance("force_eager"):  # for functions that were decorated before
            yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
