"""Seed random numbers by the position in a run, so that a resume needs no saved generator states."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*position: int | str) -> int:
    """Hash a position in a run, such as (seed, stage, epoch, step), to a seed of 63 bits."""
    digest = hashlib.sha256("|".join(str(part) for part in position).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def make_generator(device: torch.device, *position: int | str) -> torch.Generator:
    """Make a random-number generator on a device, seeded by a position in a run."""
    return torch.Generator(device).manual_seed(derive_seed(*position))


@contextmanager
def deterministic_kernels(enabled: bool) -> Iterator[None]:
    """Let torch use deterministic kernels only while a block runs, so that a resume on GPUs is exact, bit for bit.

    It must be the first to use a GPU, as cuBLAS reads its setting only once. An operation without a deterministic
    kernel raises RuntimeError. enabled: false changes nothing.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
