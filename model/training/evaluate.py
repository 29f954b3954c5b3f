"""A split through the model, exact over all ranks: every promoter counted once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.bert.objectives import to_device
from model.bert.rng import generator
from model.distributed.process_group import World, all_gather, sums_over_ranks
from model.scoring.metrics import base_perplexity, regression_scores
from pipeline.shards.index import Index
from pipeline.stream.sources import ShardSource
from pipeline.stream.stream import ErrorConsensus, RankSlice, ShardStream

GLOBAL_BATCH = 1024
"""Promoters an evaluation step: fixed, so that the masks of validation are the same on any number of ranks."""


@dataclass(frozen=True)
class Predictions:
    """Held-out promoters by id: dataset id, label, prediction, each (rows,)."""

    id: npt.NDArray[np.int64]
    expression: npt.NDArray[np.float32]
    prediction: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """metric: what the stage is steered by, higher is better; values: all numbers, by name."""

    metric: float
    values: dict[str, float]
    predictions: Predictions


@dataclass(frozen=True)
class EvaluationData:
    """Where the splits lie, how many promoters a rank takes at once, and how ranks agree on what is wrong."""

    shards: Path | ShardSource
    index: Index
    micro_batch: int
    world: World
    seed: int
    agree: ErrorConsensus


def evaluate(task: Any, split: str, data: EvaluationData, given_up: Callable[[], bool]) -> Evaluation | None:
    """Run a task over a split without gradients. `task` is an engine or a module; all ranks call this.

    given_up is asked after each step by all ranks; where it says so, there is no result.
    Gives loss (nats a token), accuracy and perplexity a base for pretraining, over all masked tokens and over those
    wholly inside the insert; and loss, Pearson, Spearman, MSE and R2 for fine-tuning, from all ranks' predictions.
    """
    world = data.world
    micro_batches = -(-GLOBAL_BATCH // (world.ranks * data.micro_batch))
    part = RankSlice(world.rank, world.ranks, micro_batches)
    stream = ShardStream(data.shards, data.index, split, GLOBAL_BATCH, part, shuffle=False, agree=data.agree)
    module = getattr(task, "module", task)
    was_training = module.training
    task.eval()
    sums = torch.zeros(6, dtype=torch.float64, device=world.device)
    found: list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.float32], torch.Tensor]] = []
    abandoned = False
    with torch.inference_mode():
        for step in stream.epoch(0):
            width = module.width(step.micro_batches[0], world.device)
            draws = module.draws(step.micro_batches[0], generator(world.device, data.seed, split, 0, step.number))
            for batch in step.micro_batches:
                out = task(to_device(batch, width, draws, world.device))
                whole = torch.stack([out.loss.double(), out.count.double(), out.correct.double()])
                sums += torch.cat([whole, out.inside])
                if out.prediction.numel():  # read at the end: here a GPU would be waited for
                    found.append((batch.weight > 0, batch.id, batch.expression, out.prediction))
            abandoned = given_up()
            if abandoned:
                break
    task.train(was_training)
    if abandoned:
        return None
    totals = sums_over_ranks(*sums)
    predictions = _collect([(ids[real], y[real], values.cpu().numpy()[real]) for real, ids, y, values in found])
    if len(predictions.id):
        loss, count, *_ = totals
        scores = regression_scores(predictions.prediction, predictions.expression)
        return Evaluation(scores["pearson"], {"loss": loss / max(count, 1.0), **scores}, predictions)
    values = {**_masked_scores("", totals[:3], module.k), **_masked_scores("insert_", totals[3:], module.k)}
    return Evaluation(values["accuracy"], values, predictions)


def _masked_scores(prefix: str, sums: list[float], k: int) -> dict[str, float]:
    """Of masked tokens: sums of loss, count and correct over all ranks."""
    loss, count, correct = sums
    mean = loss / max(count, 1.0)
    accuracy = correct / max(count, 1.0)
    return {f"{prefix}loss": mean, f"{prefix}accuracy": accuracy, f"{prefix}base_perplexity": base_perplexity(mean, k)}


def _collect(found: list[tuple[npt.NDArray[Any], ...]]) -> Predictions:
    """All ranks' predictions in the order of the ids, the same on every rank."""
    empty = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))
    mine = tuple(np.concatenate(columns) for columns in zip(*found, strict=True)) if found else empty
    ids, expression, prediction = (np.concatenate(c) for c in zip(*all_gather(mine), strict=True))
    order = np.argsort(ids)
    return Predictions(ids[order], expression[order], prediction[order])
