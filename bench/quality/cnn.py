"""A small convolutional network on the bases: the baseline beside a trained BERT, on its splits, by its loader.

A stem that spots motifs, residual blocks that combine them (a convolution, squeeze and excitation), the mean over the
sequence, one output: the kind of network that did well in the DREAM Challenge. Mean squared error on standardised
labels, AdamW, a one-cycle learning rate; the weights of the best validation Pearson are scored on finetune's test.

    python -m bench.quality.cnn shards/k3                                        1.5 million parameters, for a GPU
    OMP_NUM_THREADS=1 python -m bench.quality.cnn shards/k3 --size small         82,249 parameters, for one CPU core

With one thread, equal seeds give equal numbers. For fewer rows than 50,000: 8,000 want --epochs 20, 1,000 want
--epochs 20 --batch 32 (validated at the small size).
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from model.bert.rng import seed_of
from model.scoring.metrics import pearson, spearman
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream
from pipeline.tokens.kmers import ALPHABET, SPECIALS

Values = npt.NDArray[np.float32]
LETTERS = ALPHABET.index("N")
"""Rows of a one-hot base: A, C, G, T; N has a 1 in none."""
EVALUATED_TOGETHER = 1024


@dataclass(frozen=True)
class Size:
    """motifs: channels of the stem; width: between the blocks; expansion: how many times as many within them."""

    motifs: int
    width: int
    blocks: int
    expansion: int


SIZES = {
    "full": Size(motifs=320, width=160, blocks=4, expansion=2),
    "small": Size(motifs=128, width=48, blocks=2, expansion=2),
}
STEM, KERNEL = 11, 5
"""Bases that the stem sees at once, and places (of two bases each) that a block does."""
POOL = 2
"""Bases a place."""
HEAD = 4
"""How many times as many channels as between the blocks go into the mean over the sequence."""
DROPOUT = 0.3
WEIGHT_DECAY = 0.1
WARM_UP = 0.3
"""Part of the steps over which the learning rate rises."""
PATIENCE = 8
"""Epochs without a better validation after which training ends."""


def one_hot(ids: torch.Tensor, lengths: torch.Tensor, k: int) -> torch.Tensor:
    """Bases of k-mer ids that are stored one a base: (rows, width) ids -> (rows, width, 4), 0 for N and padding."""
    first = (ids.long() - len(SPECIALS)) // 5 ** (k - 1)
    first = torch.where(real_places(lengths, ids.shape[1]), first, LETTERS)
    return F.one_hot(first, len(ALPHABET))[..., :LETTERS].float()


def real_places(lengths: torch.Tensor, width: int) -> torch.Tensor:
    """Which places hold a base: (rows, width) bool."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


class Places:
    """The real places of a padded batch, the others being 0: (rows, places, channels) all of them."""

    def __init__(self, lengths: torch.Tensor, width: int) -> None:
        """lengths: (rows,) real places; width: all places of a row."""
        self.mask = real_places(lengths, width)[..., None]
        self._real = self.mask.flatten().nonzero()[:, 0]
        self._counts = lengths.clamp(min=1)[:, None]

    def apply(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """A layer on the real places one by one: no padding in a norm's statistics, and 0 there again behind it."""
        flat = x.flatten(0, 1)
        done = layer(flat.index_select(0, self._real))
        return done.new_zeros(len(flat), done.shape[1]).index_copy(0, self._real, done).view(*x.shape[:2], -1)

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Over the real places: (rows, channels)."""
        return (x * self.mask).sum(1) / self._counts


class Convolution(nn.Module):
    """Along the sequence, (rows, places, inputs) -> (rows, places, outputs); torch is quickest with channels last."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(inputs, outputs, (1, kernel), padding=(0, kernel // 2))
        self.weigh.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: 0 where there is no base."""
        return self.weigh(x[:, None].permute(0, 3, 1, 2))[:, :, 0].transpose(1, 2)


class Block(nn.Module):
    """x + what a convolution, squeeze and excitation, and a projection back make of it."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        inner, squeezed = width * expansion, width // 4
        self.norm = nn.BatchNorm1d(width)
        self.along = Convolution(width, inner, KERNEL)
        self.gate = nn.Sequential(nn.Linear(inner, squeezed), nn.ReLU(), nn.Linear(squeezed, inner), nn.Sigmoid())
        self.project = nn.Linear(inner, width)

    def forward(self, x: torch.Tensor, places: Places) -> torch.Tensor:
        """x: (rows, places, width)."""
        y = F.relu(self.along(places.apply(self.norm, x)))
        return x + self.project(y * self.gate(places.mean(y))[:, None])


class Network(nn.Module):
    """One-hot bases -> standardised expression."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.stem = Convolution(LETTERS, size.motifs, STEM)
        self.narrow = nn.Linear(size.motifs, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.expansion) for _ in range(size.blocks))
        self.norm = nn.BatchNorm1d(size.width)
        self.widen = nn.Linear(size.width, size.width * HEAD)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(size.width * HEAD, 1)

    def forward(self, bases: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """bases: (rows, width, 4), 0 past each one's length; lengths: (rows,). Gives (rows,)."""
        bases = F.pad(bases, (0, 0, 0, -bases.shape[1] % POOL))
        found = F.relu(self.stem(bases)) * real_places(lengths, bases.shape[1])[..., None]
        x = self.narrow(found.unflatten(1, (-1, POOL)).amax(2))
        places = Places(-(-lengths // POOL), x.shape[1])
        for block in self.blocks:
            x = block(x, places)
        x = F.relu(self.widen(places.apply(self.norm, x)))
        return self.output(self.dropout(places.mean(x)))[:, 0]


@dataclass(frozen=True)
class Asked:
    """What a training is asked for. batch: promoters a step; learning_rate: the highest."""

    size: str
    epochs: int
    batch: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Found:
    """What came of it. best_epoch: counted from 1; seconds: of all epochs with their validations.

    pearson, spearman: on finetune/test; promoters_per_second: in training, without the validations.
    """

    parameters: int
    train_rows: int
    test_rows: int
    epochs: int
    best_epoch: int
    valid_pearson: float
    pearson: float
    spearman: float
    seconds: float
    promoters_per_second: float


class Baseline:
    """The network beside the shards that it is trained and scored on."""

    def __init__(self, shards: Path, asked: Asked) -> None:
        self.shards, self.asked = shards, asked
        self.index = read_index(shards)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(seed_of(asked.seed, "cnn", "weights"))
        self.network = Network(SIZES[asked.size]).to(self.device)

    def train(self, tell: Callable[[str], None]) -> Found:
        """Train, keep the best weights, score them. tell: gets a line an epoch.

        Raises UserError where the loss is no number any more.
        """
        asked, network = self.asked, self.network
        stream = self._stream("train", asked.batch, shuffle=True)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        schedule = OneCycleLR(optimizer, asked.learning_rate, asked.epochs * len(stream), pct_start=WARM_UP)
        epoch, best, best_epoch = 0, -math.inf, 0
        kept: dict[str, torch.Tensor] = {}
        began, training = time.monotonic(), 0.0
        while epoch < asked.epochs and epoch - best_epoch < PATIENCE:
            epoch += 1
            training -= time.monotonic()
            loss = self._train_epoch(stream, epoch, optimizer, schedule)
            training += time.monotonic()
            if not math.isfinite(loss):  # its predictions are none either, for which Pearson's r counts as 0
                raise UserError(f"the loss is {loss} in epoch {epoch}; try a lower --learning-rate")
            reached = pearson(*self.predict("valid"))
            tell(f"epoch {epoch} of {asked.epochs}: loss {loss:.4f}, valid Pearson {reached:.4f}")
            if reached > best:
                best, best_epoch, kept = reached, epoch, deepcopy(network.state_dict())
        seconds = time.monotonic() - began
        network.load_state_dict(kept)
        prediction, label = self.predict("test")
        return Found(
            parameters=sum(weights.numel() for weights in network.parameters()),
            train_rows=stream.rows,
            test_rows=len(label),
            epochs=epoch,
            best_epoch=best_epoch,
            valid_pearson=best,
            pearson=pearson(prediction, label),
            spearman=spearman(prediction, label),
            seconds=seconds,
            promoters_per_second=epoch * stream.rows / training,
        )

    @torch.inference_mode()
    def predict(self, split: str) -> tuple[Values, Values]:
        """Standardised predictions and labels of a split of finetune, in the split's order: (rows,) each."""
        self.network.eval()
        stream = self._stream(split, EVALUATED_TOGETHER, shuffle=False)
        found = [(prediction.cpu().numpy(), label) for prediction, label in self._batches(stream, 0)]
        prediction, label = (np.concatenate(part) for part in zip(*found, strict=True))
        return prediction, label

    def _train_epoch(
        self, stream: ShardStream, epoch: int, optimizer: torch.optim.Optimizer, schedule: OneCycleLR
    ) -> float:
        """The mean loss."""
        self.network.train()
        torch.manual_seed(seed_of(self.asked.seed, "cnn", epoch))  # dropout
        total = torch.zeros((), device=self.device)
        for prediction, label in self._batches(stream, epoch):
            standardised = (torch.from_numpy(label) - self.index.label_mean) / self.index.label_sd
            loss = F.mse_loss(prediction, standardised.to(self.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(label)
        return total.item() / stream.rows

    def _stream(self, split: str, batch: int, shuffle: bool) -> ShardStream:
        return ShardStream(self.shards, self.index, f"finetune/{split}", batch, RankSlice(), self.asked.seed, shuffle)

    def _batches(self, stream: ShardStream, epoch: int) -> Iterator[tuple[torch.Tensor, Values]]:
        """Standardised predictions and labels of each batch."""
        for step in stream.epoch(epoch):
            (batch,) = step.micro_batches
            ids, lengths = (torch.from_numpy(array).to(self.device) for array in (batch.tokens, batch.lengths))
            yield self.network(one_hot(ids, lengths, self.index.k), lengths), batch.expression


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("shards", type=Path, help="folder of a k, such as shards/k3")
    cli.add_argument("--size", choices=SIZES, default="full")
    cli.add_argument("--epochs", type=int, default=8)
    cli.add_argument("--batch", type=int, default=128, help="promoters a step")
    cli.add_argument("--learning-rate", type=float, default=1e-2, help="the highest of the cycle")
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--json", action="store_true", help="the result as one line of JSON, with its settings")
    options = vars(cli.parse_args())
    shards, as_json = options.pop("shards"), options.pop("json")
    try:
        found = Baseline(shards, Asked(**options)).train(lambda line: print(line, file=sys.stderr, flush=True))
    except UserError as error:
        cli.exit(1, f"{error}\n")
    if as_json:
        print(json.dumps({"asked": options, **asdict(found)}))
        return
    print(
        f"CNN of {found.parameters:,} parameters, epoch {found.best_epoch} of {found.epochs} (chosen on valid): "
        f"{found.train_rows:,} train, {found.test_rows:,} test, {found.promoters_per_second:,.0f} promoters/s"
    )
    print(f"Pearson {found.pearson:.4f}, Spearman {found.spearman:.4f}")


if __name__ == "__main__":
    main()
