"""Steps of optimizers on equal random gradients."""

from collections.abc import Sequence

import torch

from model.muon.compilation import torch_compile


def take_random_steps(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Take three steps of all optimizers, with one random gradient for both weights of each pair."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        for a, b in pairs:
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        with torch_compile(False):
            for each in optimizers:
                each.step()
