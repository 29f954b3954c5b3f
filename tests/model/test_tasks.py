from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from model.bert import masked_language_model, regression_model
from model.seeds import generator
from model.tasks import FinetuneTask, PretrainTask, mean_over_frames, to_device
from pipeline.index import read_index
from pipeline.stream import Part, Stream

CPU = torch.device("cpu")


class SumModel(nn.Module):
    """Says how many tokens it sees: an answer that can be checked by hand."""

    def forward(self, input_ids, attention_mask):
        total = attention_mask.sum(1, keepdim=True).float()
        return type("Output", (), {"logits": total})


def steps(made, micro=1, ranks=1, batch=50):
    index = read_index(made.shards)
    streams = [Stream(made.shards, index, "finetune/train", batch, Part(r, ranks, micro)) for r in range(ranks)]
    return zip(*(s.epoch(0) for s in streams), strict=True)


def test_the_mean_over_frames_by_hand():
    tokens = torch.full((2, 8), 9)
    lengths = torch.tensor([8, 4])
    # frames of 8 bases hold 2, 2, 2 3-mers, of 4 bases 1, 1, 0; [CLS] and [SEP] make two more
    assert mean_over_frames(SumModel(), tokens, lengths, 3).tolist() == pytest.approx([4, (3 + 3 + 2) / 3])
    assert mean_over_frames(SumModel(), tokens, lengths, 3, "overlapping").tolist() == [6 + 2, 2 + 2]


def test_squared_error_on_standardised_labels_by_hand(made):
    batch = next(steps(made))[0].micro_batches[0]
    batch = replace(batch, weight=np.arange(len(batch.id), dtype=np.float32) % 2)
    sums = FinetuneTask(SumModel(), 3, label_mean=10.0, label_sd=2.0)(to_device(batch, None, CPU))
    lengths = batch.lengths
    output = np.mean([(lengths - f) // 3 + 2 for f in range(3)], axis=0)
    errors = output - (batch.expression - 10) / 2
    assert sums.loss.item() == pytest.approx((errors**2 * batch.weight).sum(), rel=1e-5)
    assert sums.count == batch.weight.sum()
    assert sums.prediction.numpy() == pytest.approx(output * 2 + 10, rel=1e-5)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_sums_and_gradients_do_not_depend_on_the_split_of_the_global_batch(made, stage):
    """Also with more parts than rows: a part without rows adds nothing."""
    torch.manual_seed(0)
    index = read_index(made.shards)
    config = made.config.model_copy(update={"model": made.config.model.model_copy(update={"dropout": 0.0})})
    task = (
        PretrainTask(masked_language_model(config, index), 3, 0.15)
        if stage == "pretrain"
        else FinetuneTask(regression_model(config, index, None), 3, 10.0, 2.0)
    )
    found = []
    for ranks, micro in ((1, 1), (1, 7), (3, 2), (5, 12)):
        together = next(steps(made, micro, ranks, batch=50))
        task.zero_grad()
        loss = count = correct = 0.0
        for step in together:
            draws = task.draws(step.micro_batches[0], generator(CPU, "a step"))
            normaliser = float(task.normaliser(step.micro_batches[0], draws))
            for batch in step.micro_batches:
                sums = task(to_device(batch, draws, CPU))
                (sums.loss / normaliser).backward()
                loss, count, correct = loss + sums.loss.item(), count + sums.count.item(), correct + sums.correct.item()
        gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])
        found.append((loss, count, correct, normaliser, gradient))
    for loss, count, correct, normaliser, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert (count, correct, normaliser) == found[0][1:4]
        assert torch.allclose(gradient, found[0][4], atol=1e-6)
    if stage == "pretrain":
        assert found[0][1] == pytest.approx(found[0][3], rel=0.25)  # masked against expected to be


def test_a_prediction_does_not_depend_on_its_neighbours_or_padding(made):
    torch.manual_seed(0)
    model = regression_model(made.config, read_index(made.shards), None).eval()
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    with torch.inference_mode():
        together = mean_over_frames(model, tokens, lengths, 3)
        wider = mean_over_frames(model, torch.nn.functional.pad(tokens, (0, 16)), lengths, 3)
        alone = [mean_over_frames(model, tokens[i : i + 1, :n], lengths[i : i + 1], 3) for i, n in enumerate(lengths)]
    assert torch.allclose(together, wider, atol=1e-5)
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
