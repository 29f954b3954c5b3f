"""Evaluate a split, exactly over all ranks: every promoter counts once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.bert.device_batch import batch_to_device
from model.bert.rng import generator
from model.distributed.process_group import all_gather, sums_over_ranks
from model.scoring.metrics import base_perplexity, regression_scores
from model.training.data import RankData

Output = tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.float32], torch.Tensor]
"""Of a batch: which rows are real promoters, their ids and labels, the predictions; each (rows,)."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a split, in the order of the ids.

    id: (rows,) int64, of the dataset; expression, prediction: (rows,) float32, on the scale of the labels.
    """

    id: npt.NDArray[np.int64]
    expression: npt.NDArray[np.float32]
    prediction: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """metric: the stage's validation metric, higher is better; values: all numbers, by name."""

    metric: float
    values: dict[str, float]
    predictions: Predictions


def evaluate(task: Any, split: str, data: RankData, micro_batch: int, stopped: Callable[[], bool]) -> Evaluation | None:
    """Run a task over a split without gradients. All ranks call this.

    task: a DeepSpeed engine or a module; micro_batch: promoters per rank at once; stopped: asked after each step by all
    ranks, and where it is true the result is None.

    Values of pretraining: loss (nats per masked token), accuracy and perplexity per base, over all masked tokens and,
    prefixed by insert_, over those wholly inside the insert. Values of fine-tuning: loss, Pearson, Spearman, MSE, R2.
    """
    module = getattr(task, "module", task)
    was_training = module.training
    task.eval()
    found = _run(task, module, split, data, micro_batch, stopped)
    task.train(was_training)
    if found is None:
        return None
    sums, outputs = found
    totals = sums_over_ranks(*sums)
    predictions = _all_predictions(outputs)
    if len(predictions.id):
        loss, count, *_ = totals
        scores = regression_scores(predictions.prediction, predictions.expression)
        return Evaluation(scores["pearson"], {"loss": loss / max(count, 1.0), **scores}, predictions)
    values = {**_masked_scores("", totals[:3], module.k), **_masked_scores("insert_", totals[3:], module.k)}
    return Evaluation(values["accuracy"], values, predictions)


def _run(
    task: Any, module: Any, split: str, data: RankData, micro_batch: int, stopped: Callable[[], bool]
) -> tuple[torch.Tensor, list[Output]] | None:
    """Run this rank's part.

    Returns sums (6,) float64 of loss, count and correct over all tokens and inside the insert, and the predictions of
    each batch. They stay on the device: reading each would wait for a GPU.
    """
    device = data.world.device
    sums = torch.zeros(6, dtype=torch.float64, device=device)
    outputs: list[Output] = []
    with torch.inference_mode():
        for step in data.evaluation_stream(split, micro_batch).epoch(0):
            first = step.micro_batches[0]
            width = module.width(first, device)
            draws = module.draws(first, generator(device, data.seed, split, 0, step.number))
            for batch in step.micro_batches:
                out = task(batch_to_device(batch, width, draws, device))
                everywhere = torch.stack([out.loss.double(), out.count.double(), out.correct.double()])
                sums += torch.cat([everywhere, out.inside])
                if out.prediction.numel():
                    outputs.append((batch.weight > 0, batch.id, batch.expression, out.prediction))
            if stopped():
                return None
    return sums, outputs


def _masked_scores(prefix: str, sums: list[float], k: int) -> dict[str, float]:
    """Compute the scores of masked tokens. sums: loss, count and correct over all ranks."""
    loss, count, correct = sums
    mean = loss / max(count, 1.0)
    accuracy = correct / max(count, 1.0)
    return {f"{prefix}loss": mean, f"{prefix}accuracy": accuracy, f"{prefix}base_perplexity": base_perplexity(mean, k)}


def _all_predictions(outputs: list[Output]) -> Predictions:
    """Gather the predictions of all ranks, in the order of the ids, on every rank."""
    parts = [(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))]
    parts += [(ids[real], labels[real], values.cpu().numpy()[real]) for real, ids, labels, values in outputs]
    mine = tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
    ids, expression, prediction = (np.concatenate(c) for c in zip(*all_gather(mine), strict=True))
    order = np.argsort(ids)
    return Predictions(ids[order], expression[order], prediction[order])
