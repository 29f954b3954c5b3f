"""Random numbers as a function of where a run stands, so that a resume needs no saved generator states."""

import hashlib

import torch


def seed_of(*place: int | str) -> int:
    """A seed from any place in a run, such as (seed, stage, epoch, step)."""
    digest = hashlib.sha256("|".join(str(part) for part in place).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(device: torch.device, *place: int | str) -> torch.Generator:
    """A generator on a device, seeded by a place."""
    return torch.Generator(device).manual_seed(seed_of(*place))
