"""Evaluate a split exactly over all ranks: every promoter counts once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.bert.device_batch import pass_to_device
from model.bert.length_cut import join_rows
from model.bert.rng import make_generator
from model.distributed.process_group import all_gather, sum_over_ranks
from model.scoring.metrics import base_perplexity, regression_scores, scores_of_labels
from model.training.prepare import RankData

Output = tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.float32], torch.Tensor]
"""Output of a batch: whether a row is a real promoter and ids, (rows,); labels and predictions, (rows,) or
(rows, labels)."""

STOP_EVERY = {"cpu": 1, "cuda": 8}
"""Steps between two exchanges of stop requests, for which a GPU waits: about a second of work."""


class StopRequestError(Exception):
    """End of an evaluation on every rank after a stop request."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split, and its predictions in the order of the ids.

    metric: the stage's validation metric, higher is better; values: all metrics by name; id: (rows,) int64, of the
    dataset; expression, prediction: float32, label and prediction on the scale of the labels, (rows,) or (rows, labels)
    for several labels. In pretraining there are no rows.
    """

    metric: float
    values: dict[str, float]
    id: npt.NDArray[np.int64]
    expression: npt.NDArray[np.float32]
    prediction: npt.NDArray[np.float32]


def evaluate(task: Any, split: str, data: RankData, micro_batch: int, is_stopped: Callable[[], bool]) -> Evaluation:
    """Evaluate a task on a split without gradients. All ranks call this.

    task: a DeepSpeed engine or a module; micro_batch: promoters per micro-batch in training; is_stopped: called by
    all ranks after each STOP_EVERY steps. Raises StopRequestError if it returns true.

    Metrics of pretraining: loss (nats per masked token, or per hidden base), accuracy and perplexity per base, over all
    of these and, with prefix insert_, over those wholly inside the insert. Metrics of fine-tuning: loss, Pearson,
    Spearman, MSE, R2; with several labels see scores_of_labels. The mean Pearson is then the validation metric.
    """
    module = getattr(task, "module", task)
    was_training = module.training
    task.eval()
    try:
        sums, outputs = _sum_batches(task, module, split, data, micro_batch, is_stopped)
    finally:
        task.train(was_training)
    totals = sum_over_ranks(*sums)
    rows = _gather_rows(outputs)
    if len(rows[0]):
        labels = data.index.labels
        scores = scores_of_labels(rows[2], rows[1], labels) if labels else regression_scores(rows[2], rows[1])
        return Evaluation(scores["pearson"], {"loss": totals[0] / max(totals[1], 1.0), **scores}, *rows)
    bases = module.target_bases
    values = _compute_masked_scores("", totals[:3], bases) | _compute_masked_scores("insert_", totals[3:], bases)
    return Evaluation(values["accuracy"], values, *rows)


def _sum_batches(
    task: Any, module: Any, split: str, data: RankData, micro_batch: int, is_stopped: Callable[[], bool]
) -> tuple[torch.Tensor, list[Output]]:
    """Run the batches of this rank.

    Returns sums (6,) float64 of loss, count and correct over all tokens and inside the insert, and the output of each
    batch. They stay on the device, as every copy would wait for the GPU.
    """
    device = data.world.device
    sums = torch.zeros(6, dtype=torch.float64, device=device)
    outputs: list[Output] = []
    with torch.inference_mode():
        for step in data.open_evaluation_stream(split, micro_batch).epoch(0):
            first = step.micro_batches[0]
            draws = module.draw(first, make_generator(device, data.seed, split, 0, step.number))
            for batch in step.micro_batches:
                passes = module.cut(batch, device)
                out = task(*(pass_to_device(batch, one, draws, device) for one in passes))
                everywhere = torch.stack([out.loss.double(), out.count.double(), out.correct.double()])
                sums += torch.cat([everywhere, out.inside])
                if out.prediction.numel():
                    order = join_rows(passes)
                    columns = (column[order] for column in (batch.weight > 0, batch.id, batch.expression))
                    outputs.append((*columns, out.prediction))
            if (step.number + 1) % STOP_EVERY[device.type] == 0 and is_stopped():
                raise StopRequestError
    return sums, outputs


def _compute_masked_scores(prefix: str, sums: list[float], bases: int) -> dict[str, float]:
    loss, count, correct = sums
    mean = loss / max(count, 1.0)
    accuracy = correct / max(count, 1.0)
    return {
        f"{prefix}loss": mean,
        f"{prefix}accuracy": accuracy,
        f"{prefix}base_perplexity": base_perplexity(mean, bases),
    }


def _gather_rows(
    outputs: list[Output],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Gather ids, labels and predictions of all ranks on every rank, in the order of the ids.

    Without outputs, in pretraining, they are empty.
    """
    parts = [(ids[real], labels[real], values.cpu().numpy()[real]) for real, ids, labels, values in outputs]
    parts = parts or [(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))]
    mine = tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
    ids, labels, predictions = (np.concatenate(columns) for columns in zip(*all_gather(mine), strict=True))
    order = np.argsort(ids)
    return ids[order], labels[order], predictions[order]
