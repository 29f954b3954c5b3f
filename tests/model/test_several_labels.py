"""Several labels from shards to predictions: masked loss, scores per label, stock export, files."""

import numpy as np
import pytest
import torch

from model.bert.build import build_task
from model.bert.device_batch import batch_to_device
from model.bert.objectives import FinetuneTask, average_over_frames
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream
from tests.several_labels import LABELS, make_two_labels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return make_two_labels(tmp_path_factory.mktemp("two"), 400, "model.dropout=0.0")


def first_step(two, part):
    return next(ShardStream(two.shards, read_index(two.shards), "finetune/train", 32, part, seed=3).epoch(0))


def make_task(two, loss="mse"):
    torch.manual_seed(1)
    config = two.config.model_copy(update={"finetune": two.config.finetune.model_copy(update={"loss": loss})})
    return build_task(config, read_index(two.shards), "finetune").train()


def gradient(task, batches):
    """Compute loss and gradient of a global batch as the engine does: sums, divided by the count of all its values."""
    task.zero_grad()
    total = 0.0
    for batch in batches:
        sums = task(batch_to_device(batch, task.choose_width(batch, CPU), None, CPU))
        (sums.loss / task.compute_normalizer(batch, None)).backward()
        total += float(sums.loss.detach()) / task.compute_normalizer(batch, None)
    return total, torch.cat([weights.grad.flatten() for weights in task.parameters() if weights.grad is not None])


@pytest.mark.parametrize("loss", ["mse", "smooth_l1"])
def test_masked_loss_equals_a_computation_per_label(two, loss):
    """The oracle selects the rows of each label, and weights the label's mean loss by its number of values."""
    task = make_task(two, loss)
    (batch,) = first_step(two, RankSlice()).micro_batches
    index = read_index(two.shards)
    total, got = gradient(task, [batch])
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    output = average_over_frames(task.model, tokens, lengths, 3)
    counts, parts = [], []
    for place in range(2):
        rows = np.flatnonzero(np.isfinite(batch.expression[:, place]))
        label = (torch.from_numpy(batch.expression[rows, place]) - index.label_mean[place]) / index.label_sd[place]
        counts.append(len(rows))
        parts.append({"mse": torch.nn.MSELoss, "smooth_l1": torch.nn.SmoothL1Loss}[loss]()(output[rows, place], label))
    assert 0 < min(counts) < 32  # some values are missing
    expected = (counts[0] * parts[0] + counts[1] * parts[1]) / sum(counts)
    task.zero_grad()
    expected.backward()
    oracle = torch.cat([weights.grad.flatten() for weights in task.parameters() if weights.grad is not None])
    assert total == pytest.approx(expected.item(), rel=1e-5)
    assert float(oracle.abs().max()) > 1e-3
    torch.testing.assert_close(got, oracle, rtol=1e-4, atol=1e-6)


def test_loss_and_gradient_do_not_depend_on_ranks_and_micro_batches(two):
    task = make_task(two)
    total, whole = gradient(task, first_step(two, RankSlice()).micro_batches)
    for ranks, parts in ((1, 4), (2, 1), (2, 3), (40, 1)):  # 40 ranks: some have only padding rows
        batches = [b for rank in range(ranks) for b in first_step(two, RankSlice(rank, ranks, parts)).micro_batches]
        split_total, split = gradient(task, batches)
        assert split_total == pytest.approx(total, rel=1e-5)
        torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-6)


def test_a_batch_without_values_gives_zero_and_no_nan(two):
    task = make_task(two)
    (batch,) = first_step(two, RankSlice()).micro_batches
    object.__setattr__(batch, "expression", np.full_like(batch.expression, np.nan))
    object.__setattr__(batch, "global_values", 0)
    total, values = gradient(task, [batch])
    assert total == 0.0
    assert not values.any()  # zeros, not NaN


def test_predictions_are_on_the_scale_of_each_label(two):
    index, task = read_index(two.shards), make_task(two).eval()
    (batch,) = first_step(two, RankSlice()).micro_batches
    device_batch = batch_to_device(batch, task.choose_width(batch, CPU), None, CPU)
    with torch.inference_mode():
        standard = FinetuneTask(task.model, 3, 0.0, 1.0)(device_batch).prediction.numpy()
        scaled = task(device_batch).prediction.numpy()
    assert scaled == pytest.approx(standard * index.label_sd + index.label_mean, rel=1e-5)
    assert abs(index.label_mean[0] - index.label_mean[1]) > 1  # so a wrong order would be seen
    assert index.labels == LABELS
