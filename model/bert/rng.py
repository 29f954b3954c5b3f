"""Seed random numbers by the place in a run, so that a resume needs no saved generator states."""

import hashlib

import torch


def seed_of(*place: int | str) -> int:
    """Hash a place in a run, such as (seed, stage, epoch, step), to a seed of 63 bits."""
    digest = hashlib.sha256("|".join(str(part) for part in place).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(device: torch.device, *place: int | str) -> torch.Generator:
    """Make a random-number generator on a device, seeded by a place in a run."""
    return torch.Generator(device).manual_seed(seed_of(*place))
