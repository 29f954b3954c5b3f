"""Seed random numbers by the position in a run, so that a resume needs no saved generator states."""

import hashlib

import torch


def derive_seed(*position: int | str) -> int:
    """Hash a position in a run, such as (seed, stage, epoch, step), to a seed of 63 bits."""
    digest = hashlib.sha256("|".join(str(part) for part in position).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def make_generator(device: torch.device, *position: int | str) -> torch.Generator:
    """Make a random-number generator on a device, seeded by a position in a run."""
    return torch.Generator(device).manual_seed(derive_seed(*position))
