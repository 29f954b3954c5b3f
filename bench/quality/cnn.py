"""Convolutional network on one-hot bases: a baseline for BERT, with the same splits and data loader.

    python -m bench.quality.cnn shards/k3                                    1.5 million parameters, for a GPU
    OMP_NUM_THREADS=1 python -m bench.quality.cnn shards/k3 --size small     82,249 parameters, for one CPU core

A stem detects motifs, residual blocks (a convolution, squeeze and excitation) combine them, and the mean over the
sequence gives one output. Networks of this kind did well in the DREAM Challenge (Rafi et al. 2024, doi
10.1038/s41587-024-02414-w). Mean squared error on standardized labels, AdamW, one-cycle learning rate. The weights with
the highest validation Pearson are scored on finetune/test.

With one thread, equal seeds give equal numbers. Settings for fewer than 50,000 rows, tuned with --size small: --epochs
20 for 8,000 rows, --epochs 20 --batch 32 for 1,000 rows.
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

from model.bert.rng import derive_seed
from model.scoring.metrics import pearson, spearman
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream
from pipeline.tokens.kmers import ALPHABET, SPECIALS

Values = npt.NDArray[np.float32]
BASES = ALPHABET.index("N")
"""Channels of a one-hot base: A, C, G, T; N is all zeros."""
EVALUATION_BATCH = 1024
"""Promoters per forward pass without training."""


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
WEIGHT_DECAY = 0.1
WARM_UP = 0.3
"""Share of the steps over which the learning rate rises."""
PATIENCE = 8
"""Epochs without a higher validation Pearson after which training ends."""


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
        return result.new_zeros(len(flat), result.shape[1]).index_copy(0, self._real, result).view(*x.shape[:2], -1)

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Average over places with bases: (rows, channels)."""
        return (x * self.mask).sum(1) / self._counts


class Convolution(nn.Module):
    """Convolution along the sequence: (rows, places, inputs) -> (rows, places, outputs).

    A two-dimensional convolution with channels last is the fastest form on CPUs.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(inputs, outputs, (1, kernel), padding=(0, kernel // 2))
        self.weigh.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve x (rows, places, inputs), which is 0 in padding."""
        return self.weigh(x[:, None].permute(0, 3, 1, 2))[:, :, 0].transpose(1, 2)


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
        return x + self.project(y * self.gate(places.mean(y))[:, None])


class Network(nn.Module):
    """Network from one-hot bases to standardized expression."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.stem = Convolution(BASES, size.motifs, STEM)
        self.narrow = nn.Linear(size.motifs, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.expansion) for _ in range(size.blocks))
        self.norm = nn.BatchNorm1d(size.width)
        self.widen = nn.Linear(size.width, size.width * HEAD)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(size.width * HEAD, 1)

    def forward(self, bases: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Predict standardized expression (rows,). bases: (rows, width, 4), 0 past each length; lengths: (rows,)."""
        bases = F.pad(bases, (0, 0, 0, -bases.shape[1] % POOL))
        motifs = F.relu(self.stem(bases)) * mask_places(lengths, bases.shape[1])[..., None]
        x = self.narrow(motifs.unflatten(1, (-1, POOL)).amax(2))
        places = Places(-(-lengths // POOL), x.shape[1])
        for block in self.blocks:
            x = block(x, places)
        x = F.relu(self.widen(places.apply(self.norm, x)))
        return self.output(self.dropout(places.mean(x)))[:, 0]


@dataclass(frozen=True)
class CnnSettings:
    """Settings of a training. size: key of SIZES; batch: promoters per step; learning_rate: the highest one."""

    size: str
    epochs: int
    batch: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class CnnResult:
    """Result of a training. best_epoch: counted from 1; seconds: of all epochs with their validations.

    pearson, spearman: on finetune/test; promoters_per_second: of training, without validation.
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
    """The network, and the shards for its training and scores."""

    def __init__(self, shards: Path, settings: CnnSettings) -> None:
        self.shards, self.settings = shards, settings
        self.index = read_index(shards)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(derive_seed(settings.seed, "cnn", "weights"))
        self.network = Network(SIZES[settings.size]).to(self.device)

    def train(self, emit: Callable[[str], None]) -> CnnResult:
        """Train, and score the best weights. emit: called with one line per epoch.

        Raises UserError if the loss is not finite.
        """
        settings, network = self.settings, self.network
        stream = self._stream("train", settings.batch, shuffle=True)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        schedule = OneCycleLR(optimizer, settings.learning_rate, settings.epochs * len(stream), pct_start=WARM_UP)
        epoch, best, best_epoch = 0, -math.inf, 0
        best_weights: dict[str, torch.Tensor] = {}
        start, training_s = time.monotonic(), 0.0
        while epoch < settings.epochs and epoch - best_epoch < PATIENCE:
            epoch += 1
            training_s -= time.monotonic()
            loss = self._train_epoch(stream, epoch, optimizer, schedule)
            training_s += time.monotonic()
            if not math.isfinite(loss):  # otherwise Pearson of NaN predictions counts as 0
                raise UserError(
                    f"loss is {loss} in epoch {epoch}; expected a finite loss; fix: a lower --learning-rate"
                )
            valid_pearson = pearson(*self.predict("valid"))
            emit(f"epoch {epoch} of {settings.epochs}: loss {loss:.4f}, valid Pearson {valid_pearson:.4f}")
            if valid_pearson > best:
                best, best_epoch, best_weights = valid_pearson, epoch, deepcopy(network.state_dict())
        seconds = time.monotonic() - start
        network.load_state_dict(best_weights)
        prediction, label = self.predict("test")
        return CnnResult(
            parameters=sum(weights.numel() for weights in network.parameters()),
            train_rows=stream.rows,
            test_rows=len(label),
            epochs=epoch,
            best_epoch=best_epoch,
            valid_pearson=best,
            pearson=pearson(prediction, label),
            spearman=spearman(prediction, label),
            seconds=seconds,
            promoters_per_second=epoch * stream.rows / training_s,
        )

    @torch.inference_mode()
    def predict(self, split: str) -> tuple[Values, Values]:
        """Predict a split of finetune in its order: standardized predictions and labels, float32 (rows,) each."""
        self.network.eval()
        stream = self._stream(split, EVALUATION_BATCH, shuffle=False)
        batches = [(prediction.cpu().numpy(), label) for prediction, label in self._batches(stream, 0)]
        prediction, label = (np.concatenate(part) for part in zip(*batches, strict=True))
        return prediction, label

    def _train_epoch(
        self, stream: ShardStream, epoch: int, optimizer: torch.optim.Optimizer, schedule: OneCycleLR
    ) -> float:
        """Train one epoch and return the mean loss."""
        self.network.train()
        torch.manual_seed(derive_seed(self.settings.seed, "cnn", epoch))  # dropout
        total = torch.zeros((), device=self.device)
        for prediction, label in self._batches(stream, epoch):
            standardized = (torch.from_numpy(label) - self.index.label_mean) / self.index.label_sd
            loss = F.mse_loss(prediction, standardized.to(self.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(label)
        return total.item() / stream.rows

    def _stream(self, split: str, batch: int, shuffle: bool) -> ShardStream:
        return ShardStream(
            self.shards, self.index, f"finetune/{split}", batch, RankSlice(), self.settings.seed, shuffle
        )

    def _batches(self, stream: ShardStream, epoch: int) -> Iterator[tuple[torch.Tensor, Values]]:
        """Yield standardized predictions (rows,) and labels (rows,) of each batch."""
        for step in stream.epoch(epoch):
            (batch,) = step.micro_batches
            ids, lengths = (torch.from_numpy(array).to(self.device) for array in (batch.tokens, batch.lengths))
            yield self.network(one_hot(ids, lengths, self.index.k), lengths), batch.expression


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("shards", type=Path, help="folder of one k, such as shards/k3")
    cli.add_argument("--size", choices=SIZES, default="full", help="default: full")
    cli.add_argument("--epochs", type=int, default=8, help="default: 8")
    cli.add_argument("--batch", type=int, default=128, help="promoters per step; default: 128")
    cli.add_argument("--learning-rate", type=float, default=1e-2, help="highest one of the cycle; default: 0.01")
    cli.add_argument("--seed", type=int, default=0, help="default: 0")
    cli.add_argument("--json", action="store_true", help="print result and settings as one line of JSON")
    options = vars(cli.parse_args())
    shards, as_json = options.pop("shards"), options.pop("json")
    try:
        result = Baseline(shards, CnnSettings(**options)).train(lambda line: print(line, file=sys.stderr, flush=True))
    except UserError as error:
        cli.exit(1, f"error: {error}\n")
    if as_json:
        print(json.dumps({"asked": options, **asdict(result)}))
        return
    print(
        f"CNN of {result.parameters:,} parameters, epoch {result.best_epoch} of {result.epochs} (selected on valid): "
        f"{result.train_rows:,} train, {result.test_rows:,} test, {result.promoters_per_second:,.0f} promoters/s"
    )
    print(f"Pearson {result.pearson:.4f}, Spearman {result.spearman:.4f}")


if __name__ == "__main__":
    main()
