"""Training of the convolutional network, with the same splits and data loader as BERT.

Mean squared error on standardized labels, AdamW or Muon, one-cycle learning rate. The weights with the highest
validation Pearson are kept. With one thread, equal seeds give equal numbers.
"""

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from model.baselines.cnn_network import SIZES, Network, one_hot
from model.baselines.cnn_optimizer import WEIGHT_DECAY, Optimizer, make_optimizer
from model.baselines.fit import HELD_OUT, BaselineFit, HeldOutRows, OnProgress
from model.bert.rng import derive_seed
from model.muon.compilation import torch_compile
from model.scoring.metrics import regression_scores, scores_of_labels
from pipeline.errors import UserError
from pipeline.shards.index import Index, read_index
from pipeline.stream.sources import ShardSource
from pipeline.stream.stream import Batch, RankSlice, ShardStream
from pipeline.tokens.kmers import Ids, Numbers

Values = npt.NDArray[np.float32]
EVALUATION_BATCH = 1024
"""Promoters per forward pass without training."""
WARM_UP = 0.3
"""Share of the steps over which the learning rate rises."""
LEARNING_RATE = 1e-2
SCHEDULES = ((2_800, 20, 32), (20_000, 20, 128), (160_000, 8, 128), (None, 2, 128))
"""Training rows up to which a schedule is used (None: any number), its epochs, and promoters per step.

Tuned with 1,000, 8,000 and 50,000 rows on the validation split of one seed (bench/quality); the last one was used, but
not tuned, with 500,000 rows. The limits are near the geometric means.
"""
AUGMENTED = 4
"""Factor of the epochs for training with random Ns or on both strands: no epoch reads what another one has read."""


@dataclass(frozen=True)
class CnnSettings:
    """Settings of a training. size: key of SIZES; batch: promoters per step; learning_rate: the highest one.

    random_n: probability that training reads a base as N; reverse_complement: whether each epoch of training reads a
    random half of the promoters from the other strand; optimizer, weight_decay. All are as in the settings of
    `finetune`. With Muon, learning_rate is that of Muon and of AdamW.
    """

    size: str
    epochs: int
    batch: int
    learning_rate: float
    seed: int
    random_n: float = 0.0
    reverse_complement: bool = False
    optimizer: Optimizer = "adam"
    weight_decay: float = WEIGHT_DECAY


@dataclass(frozen=True)
class CnnFit:
    """Result of a training. best_epoch: counted from 1; seconds: of all epochs with their validations.

    valid_pearson: of the best epoch, the mean over several labels; promoters_per_second: of training, without
    validation. log: a line of metrics per epoch, as in metrics.jsonl.
    """

    parameters: int
    train_rows: int
    best_epoch: int
    best_step: int
    steps: int
    valid_pearson: float
    seconds: float
    promoters_per_second: float
    log: list[dict[str, Any]]


def choose_settings(
    train_rows: int,
    seed: int,
    learning_rate: float = LEARNING_RATE,
    epochs: int | None = None,
    random_n: float = 0.0,
    reverse_complement: bool = False,
    optimizer: Optimizer = "adam",
    weight_decay: float = WEIGHT_DECAY,
) -> CnnSettings:
    """Choose the schedule for a number of training rows. The size is always small, the only one that was tuned.

    epochs: instead of the schedule's. The others are as in CnnSettings.
    """
    tuned, batch = next((most, batch) for limit, most, batch in SCHEDULES if limit is None or train_rows <= limit)
    if random_n or reverse_complement:
        tuned *= AUGMENTED
    more = random_n, reverse_complement, optimizer, weight_decay
    return CnnSettings("small", epochs or tuned, batch, learning_rate, seed, *more)


class CnnTraining:
    """The network, and the shards for its training and predictions. index: of the shards; read from them by default."""

    def __init__(self, shards: Path | ShardSource, settings: CnnSettings, index: Index | None = None) -> None:
        self.shards, self.settings = shards, settings
        if index is None:
            assert isinstance(shards, Path)
            index = read_index(shards)
        self.index = index
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        mean, sd = self.index.label_mean, self.index.label_sd
        self._mean: Any = torch.tensor(mean) if isinstance(mean, list) else mean
        # Labels that are all equal are not divided by 0.
        self._sd: Any = torch.tensor([each or 1.0 for each in sd]) if isinstance(sd, list) else sd or 1.0
        torch.manual_seed(derive_seed(settings.seed, "cnn", "weights"))
        self.network = Network(SIZES[settings.size], self.index.label_count or 1).to(self.device)

    def fit(
        self,
        emit: Callable[[str], None] = lambda _: None,
        on_progress: OnProgress = lambda _done, _total, _note: None,
    ) -> CnnFit:
        """Train, and keep the best weights.

        emit: called with one line per epoch; on_progress: called after each step with promoters done, the total, and
        the last line. Raises UserError if the loss is not finite.
        """
        with torch_compile(enabled=self.settings.optimizer == "adam"):  # the functions of Muon run uncompiled
            return self._fit(emit, on_progress)

    def _fit(self, emit: Callable[[str], None], on_progress: OnProgress) -> CnnFit:
        settings, network = self.settings, self.network
        stream = self._stream("train", settings.batch, training=True)
        optimizer = make_optimizer(network, settings.optimizer, settings.learning_rate, settings.weight_decay)
        schedule = OneCycleLR(
            optimizer, settings.learning_rate, settings.epochs * len(stream), pct_start=WARM_UP,
            cycle_momentum=settings.optimizer == "adam",
        )  # fmt: skip
        best, best_epoch, line = -math.inf, 0, ""
        best_weights: dict[str, torch.Tensor] = {}
        log: list[dict[str, Any]] = []

        def on_rows(epochs: int, note: str, rows: int) -> None:
            on_progress(epochs * stream.rows + rows, settings.epochs * stream.rows, note)

        start, training_s = time.monotonic(), 0.0
        for epoch in range(1, settings.epochs + 1):
            epoch_s = -time.monotonic()
            loss = self._train_epoch(stream, epoch, optimizer, schedule, partial(on_rows, epoch - 1, line))
            epoch_s += time.monotonic()
            training_s += epoch_s
            if not math.isfinite(loss):  # otherwise Pearson of NaN predictions counts as 0
                raise UserError(
                    f"loss is {loss} in epoch {epoch}; expected a finite loss; fix: a lower --learning-rate"
                )
            scores = self._score("valid")
            line = f"epoch {epoch} of {settings.epochs}: loss {loss:.4f}, valid Pearson {scores['pearson']:.4f}"
            emit(line)
            log.append(
                {"stage": "finetune", "step": epoch * len(stream), "epoch": float(epoch), "loss": loss,
                 "promoters_per_second": stream.rows / epoch_s,
                 **{f"valid_{name}": value for name, value in scores.items()}}
            )  # fmt: skip
            if scores["pearson"] > best:
                best, best_epoch, best_weights = scores["pearson"], epoch, deepcopy(network.state_dict())
        seconds = time.monotonic() - start
        network.load_state_dict(best_weights)
        return CnnFit(
            parameters=sum(weights.numel() for weights in network.parameters()),
            train_rows=stream.rows,
            best_epoch=best_epoch,
            best_step=best_epoch * len(stream),
            steps=settings.epochs * len(stream),
            valid_pearson=best,
            seconds=seconds,
            promoters_per_second=settings.epochs * stream.rows / training_s,
            log=log,
        )

    def predict(self, split: str) -> tuple[Values, Values]:
        """Predict a split of finetune in its order: standardized predictions and labels.

        Both are float32, (rows,) or (rows, labels) for several labels.
        """
        return self._predict(split)[1:]

    def predict_rows(self, split: str) -> HeldOutRows:
        """Predict a split of finetune on the scale of the labels, in the order of the ids."""
        ids, prediction, label = self._predict(split)
        order = np.argsort(ids)
        return HeldOutRows(ids[order], self._from_standard(prediction)[order], label[order])

    @torch.inference_mode()
    def _predict(self, split: str) -> tuple[npt.NDArray[np.int64], Values, Values]:
        self.network.eval()
        stream = self._stream(split, EVALUATION_BATCH, training=False)
        batches = [(batch.id, out.cpu().numpy(), batch.expression) for out, batch in self._batches(stream, 0)]
        ids, prediction, label = (np.concatenate(part) for part in zip(*batches, strict=True))
        return ids, prediction, label

    def _from_standard(self, prediction: Values) -> Values:
        mean, sd = (np.asarray(value, np.float32) for value in (self.index.label_mean, self.index.label_sd))
        return np.asarray(prediction * sd + mean, np.float32)

    def _score(self, split: str) -> dict[str, float]:
        """Compute Pearson, Spearman and the loss of a split; with several labels, means over the labels."""
        prediction, label = self.predict(split)
        names = self.index.labels
        scores = scores_of_labels(prediction, label, names) if names else regression_scores(prediction, label)
        loss = self._loss(torch.from_numpy(prediction), label).item()
        return {"loss": loss, "pearson": scores["pearson"], "spearman": scores["spearman"]}

    def _train_epoch(
        self,
        stream: ShardStream,
        epoch: int,
        optimizer: torch.optim.Optimizer,
        schedule: OneCycleLR,
        on_rows: Callable[[int], None],
    ) -> float:
        """Train one epoch and return the mean loss. on_rows: called with the promoters of the epoch so far."""
        self.network.train()
        torch.manual_seed(derive_seed(self.settings.seed, "cnn", epoch))  # dropout
        total, rows = torch.zeros((), device=self.device), 0
        for prediction, batch in self._batches(stream, epoch, self.settings.random_n):
            loss = self._loss(prediction, batch.expression)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(batch.expression)
            rows += len(batch.expression)
            on_rows(rows)
        return total.item() / stream.rows

    def _loss(self, prediction: torch.Tensor, label: Values) -> torch.Tensor:
        """Compute the mean squared error of standardized predictions, over the labels that are present."""
        standardized = ((torch.from_numpy(label) - self._mean) / self._sd).to(prediction.device)
        if not self.index.labels:
            return F.mse_loss(prediction, standardized)
        present = torch.isfinite(standardized)
        total: torch.Tensor = ((prediction - standardized)[present] ** 2).sum()
        return total / present.sum().clamp(min=1)

    def _stream(self, split: str, batch: int, *, training: bool) -> ShardStream:
        """Open a split of finetune, in random order and with random strands for training."""
        return ShardStream(
            self.shards, self.index, f"finetune/{split}", batch, RankSlice(), self.settings.seed, training,
            training and self.settings.reverse_complement,
        )  # fmt: skip

    def _batches(self, stream: ShardStream, epoch: int, random_n: float = 0.0) -> Iterator[tuple[torch.Tensor, Batch]]:
        """Yield standardized predictions, (rows,) or (rows, labels), and the batch."""
        for step in stream.epoch(epoch):
            (batch,) = step.micro_batches
            yield self._forward(batch.tokens, batch.lengths, random_n), batch

    def _forward(self, tokens: Ids, lengths: Numbers, random_n: float = 0.0) -> torch.Tensor:
        """Predict padded tokens (rows, width), on the scale of standardized labels."""
        ids, places = (torch.from_numpy(array).to(self.device) for array in (tokens, lengths))
        bases = one_hot(ids, places, self.index.k)
        if random_n:
            bases *= (torch.rand(bases.shape[:2], device=self.device) >= random_n)[..., None]
        prediction: torch.Tensor = self.network(bases, places)
        return prediction


def fit_shards(
    shards: Path | ShardSource,
    index: Index,
    settings: CnnSettings,
    on_progress: OnProgress,
) -> BaselineFit:
    """Train on shards and predict their held-out splits; see CnnTraining.fit."""
    training = CnnTraining(shards, settings, index)
    fit = training.fit(on_progress=on_progress)
    held_out = {split: training.predict_rows(split) for split in HELD_OUT if f"finetune/{split}" in index.splits}
    finetune = {
        "steps": fit.steps,
        "best": fit.valid_pearson,
        "best_step": fit.best_step,
        "seconds": round(fit.seconds, 3),
    }
    chosen = {"parameters": fit.parameters, "best_epoch": fit.best_epoch}
    return BaselineFit(held_out, {"finetune": finetune}, fit.log, chosen, index.label_mean, index.label_sd)
