"""Optimizers of the convolutional network."""

import pytest
import torch

from model.baselines.cnn_network import SIZES, Convolution, Network
from model.baselines.cnn_optimizer import make_optimizer
from tests.model.muon.random_steps import take_random_steps

RATE, DECAY = 0.05, 0.1


def build():
    torch.manual_seed(1)
    return Network(SIZES["small"])


def test_muon_has_the_matrices_between_first_and_last_layer():
    network = build()
    adam, muon = make_optimizer(network, "muon", RATE, DECAY).param_groups
    names = {id(weights): name for name, weights in network.named_parameters()}
    of_muon, of_adam = ({names[id(weights)] for weights in group["params"]} for group in (muon, adam))
    blocks = [
        f"blocks.{block}.{layer}.weight" for block in (0, 1) for layer in ("along", "gate.0", "gate.2", "project")
    ]
    assert of_muon == {*blocks, "narrow.weight", "widen.weight"}
    assert of_muon | of_adam == set(names.values())
    assert not of_muon & of_adam
    assert (adam["lr"], muon["lr"]) == (RATE, RATE)


def test_muon_takes_the_steps_of_torch():
    """torch.optim.Muon and AdamW are the oracle; both orthogonalize in bfloat16, with another rounding."""
    own, torchs = build(), build()
    optimizer = make_optimizer(own, "muon", RATE, DECAY)
    chosen = {id(weights) for weights in optimizer.param_groups[1]["params"]}
    pairs = list(zip(own.parameters(), torchs.parameters(), strict=True))
    oracles = (
        torch.optim.Muon([b for a, b in pairs if id(a) in chosen], lr=RATE, weight_decay=DECAY),
        torch.optim.AdamW([b for a, b in pairs if id(a) not in chosen], lr=RATE, weight_decay=DECAY),
    )
    take_random_steps(pairs, (optimizer, *oracles))
    for (a, b), before in zip(pairs, build().parameters(), strict=True):
        moved = (b - before).norm()
        assert moved > 0
        assert (a - b).norm() < 0.05 * moved


@pytest.mark.parametrize("kernel", [5, 11])
def test_convolutions_are_those_of_torch(kernel):
    torch.manual_seed(4)
    oracle = torch.nn.Conv1d(4, 8, kernel, padding=kernel // 2)

    convolution = Convolution(4, 8, kernel)
    with torch.no_grad():
        oracle.weight.copy_(convolution.weight.view(8, kernel, 4).transpose(1, 2))
        oracle.bias.copy_(convolution.bias)
    x = torch.randn(3, 20, 4)
    assert torch.allclose(convolution(x), oracle(x.transpose(1, 2)).transpose(1, 2), atol=1e-6)
