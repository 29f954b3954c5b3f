"""Convolutional network on one-hot bases.

A stem detects motifs, residual blocks (a convolution, squeeze and excitation) combine them, and the mean over the
sequence gives one output per label. Networks of this kind did well in the DREAM Challenge (Rafi et al. 2024, doi
10.1038/s41587-024-02414-w).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.tokens.kmers import ALPHABET, SPECIALS

BASES = ALPHABET.index("N")
"""Channels of a one-hot base: A, C, G, T; N is all zeros."""


@dataclass(frozen=True)
class Size:
    """Channels of the network: motifs of the stem, width between blocks, width times expansion within blocks."""

    motifs: int
    width: int
    blocks: int
    expansion: int


SIZES = {
    "full": Size(motifs=320, width=160, blocks=4, expansion=2),
    "small": Size(motifs=128, width=48, blocks=2, expansion=2),
}
STEM, KERNEL = 11, 5
"""Kernel sizes: of the stem in bases, of a block in places of POOL bases."""
POOL = 2
"""Bases per place."""
HEAD = 4
"""Channels in the mean over the sequence, relative to the width between the blocks."""
DROPOUT = 0.3


def one_hot(ids: torch.Tensor, lengths: torch.Tensor, k: int) -> torch.Tensor:
    """Decode k-mer ids (rows, width), one per base, to one-hot bases: float32 (rows, width, 4), 0 for N and padding."""
    first = (ids.long() - len(SPECIALS)) // 5 ** (k - 1)
    first = torch.where(mask_places(lengths, ids.shape[1]), first, BASES)
    return F.one_hot(first, len(ALPHABET))[..., :BASES].float()


def mask_places(lengths: torch.Tensor, width: int) -> torch.Tensor:
    """Make the mask of places that hold a base: bool (rows, width). lengths: (rows,)."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


class Places:
    """Places of a padded batch (rows, places, channels) that hold bases; padding is 0."""

    def __init__(self, lengths: torch.Tensor, width: int) -> None:
        """Prepare the mask. lengths: places with bases per row (rows,); width: places per row."""
        self.mask = mask_places(lengths, width)[..., None]
        self._real = self.mask.flatten().nonzero()[:, 0]
        self._counts = lengths.clamp(min=1)[:, None]

    def apply(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Apply a layer to places with bases only, so that a norm's statistics ignore padding, which stays 0."""
        flat = x.flatten(0, 1)
        result = layer(flat.index_select(0, self._real))
        padded: torch.Tensor = result.new_zeros(len(flat), result.shape[1]).index_copy(0, self._real, result)
        return padded.view(*x.shape[:2], -1)

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Average over places with bases: (rows, channels)."""
        return (x * self.mask).sum(1) / self._counts


class Convolution(nn.Module):
    """Convolution along the sequence: (rows, places, inputs) -> (rows, places, outputs).

    The weight is a matrix (outputs, kernel x inputs), as Muon needs it. Its view as a two-dimensional convolution has
    channels last, the fastest form on CPUs.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        initial = nn.Conv2d(inputs, outputs, (1, kernel))
        self.weight = nn.Parameter(initial.weight.detach().permute(0, 2, 3, 1).reshape(outputs, -1))
        self.bias = initial.bias
        self._shape = outputs, 1, kernel, inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve x (rows, places, inputs), which is 0 in padding."""
        weight = self.weight.view(self._shape).permute(0, 3, 1, 2)
        padding = 0, self._shape[2] // 2
        weighted = F.conv2d(x[:, None].permute(0, 3, 1, 2), weight, self.bias, padding=padding)
        return weighted[:, :, 0].transpose(1, 2)


class Block(nn.Module):
    """Residual block: a convolution, squeeze and excitation, and a projection."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        inner, bottleneck = width * expansion, width // 4
        self.norm = nn.BatchNorm1d(width)
        self.along = Convolution(width, inner, KERNEL)
        self.gate = nn.Sequential(nn.Linear(inner, bottleneck), nn.ReLU(), nn.Linear(bottleneck, inner), nn.Sigmoid())
        self.project = nn.Linear(inner, width)

    def forward(self, x: torch.Tensor, places: Places) -> torch.Tensor:
        """Transform x (rows, places, width) to the same shape."""
        y = F.relu(self.along(places.apply(self.norm, x)))
        change: torch.Tensor = self.project(y * self.gate(places.mean(y))[:, None])
        return x + change


class Network(nn.Module):
    """Network from one-hot bases to standardized expression. labels: number of outputs."""

    def __init__(self, size: Size, labels: int = 1) -> None:
        super().__init__()
        self.stem = Convolution(BASES, size.motifs, STEM)
        self.narrow = nn.Linear(size.motifs, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.expansion) for _ in range(size.blocks))
        self.norm = nn.BatchNorm1d(size.width)
        self.widen = nn.Linear(size.width, size.width * HEAD)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(size.width * HEAD, labels)

    def forward(self, bases: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Predict standardized expression: (rows,), or (rows, labels) for several labels.

        bases: (rows, width, 4), 0 past each length; lengths: (rows,).
        """
        bases = F.pad(bases, (0, 0, 0, -bases.shape[1] % POOL))
        motifs = F.relu(self.stem(bases)) * mask_places(lengths, bases.shape[1])[..., None]
        x = self.narrow(motifs.view(len(motifs), -1, POOL, motifs.shape[2]).amax(2))
        places = Places(-(-lengths // POOL), x.shape[1])
        for block in self.blocks:
            x = block(x, places)
        x = F.relu(self.widen(places.apply(self.norm, x)))
        output: torch.Tensor = self.output(self.dropout(places.mean(x)))
        return output[:, 0] if output.shape[1] == 1 else output
