"""Pretraining on hidden spans: which bases are hidden, what the model reads, and the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.bert.build import build_task
from model.bert.device_batch import batch_to_device
from model.bert.kmer_embedding import BASES
from model.bert.masking import IGNORED
from model.bert.rng import make_generator
from model.bert.spans import (
    LONGEST,
    SHORTEST,
    SpanTask,
    find_hidden_bases,
    find_start_probability,
    name_base_outputs,
)
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream
from pipeline.tokens.kmers import ALPHABET, MASK, vocabulary
from tests.model.bert.test_objectives import ARCHITECTURE, on_spans, without_dropout

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch(made):
    """A batch of promoters of several lengths; every second one has weight 0."""
    stream = ShardStream(made.shards, read_index(made.shards), "finetune/train", 200, RankSlice(0, 1, 1))
    found = next(iter(stream.epoch(0))).micro_batches[0]
    return replace(found, weight=np.arange(len(found.id), dtype=np.float32) % 2)


def to_device(task, batch, *position):
    draws = task.draw(batch, make_generator(CPU, "spans", *position))
    return batch_to_device(batch, task.choose_width(batch, CPU), draws, CPU)


@pytest.mark.parametrize("share", [0.02, 0.15, 0.5])
def test_all_bases_are_hidden_with_the_share_of_the_setting(share):
    draws = torch.rand(20_000, 30 + LONGEST - 1, generator=torch.Generator().manual_seed(0))
    hidden = find_hidden_bases(draws, find_start_probability(share)).float().mean(0)
    assert hidden.shape == (30,)
    assert hidden.numpy() == pytest.approx(share, abs=5 * (share / 20_000) ** 0.5)


def test_lengths_of_spans_are_equally_frequent():
    """Spans are so rare here that they do not meet."""
    draws = torch.rand(200_000, 60, generator=torch.Generator().manual_seed(0))
    hidden = find_hidden_bases(draws, find_start_probability(0.001)).int()
    inside = hidden[~(hidden[:, 0] | hidden[:, -1]).bool()]
    lengths = inside.sum(1)[(inside.diff(dim=1) == 1).sum(1) == 1]  # of rows with one span
    counts = torch.bincount(lengths, minlength=2 * LONGEST)
    assert counts[SHORTEST : LONGEST + 1].sum() > 0.99 * counts.sum()
    assert counts[:SHORTEST].sum() == 0
    expected = counts[SHORTEST : LONGEST + 1].float().mean().item()
    assert counts[SHORTEST : LONGEST + 1].float().numpy() == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("insert_only", [False, True])
def test_no_visible_token_contains_a_hidden_base(made, batch, insert_only):
    """The read tokens are a function of the visible bases alone, and exactly the hidden bases are to be predicted."""
    k, flanks, names = 3, (7, 6), vocabulary(3)
    task = SpanTask(torch.nn.Identity(), k, 0.3, flanks, insert_only)
    here = to_device(task, batch)
    read, _, target = task.hide_batch(here)
    hidden_bases = 0
    for row, length in enumerate(batch.lengths.tolist()):
        tokens = batch.tokens[row, : length - k + 1].tolist()
        sequence = "".join(names[token][0] for token in tokens) + names[tokens[-1]][1:]
        shown, predicted = ["?"] * length, {}
        for place, (token, targets) in enumerate(zip(read[row, 1:].tolist(), target[row].tolist(), strict=False)):
            if place > length - k:
                assert targets == [IGNORED] * k
                continue
            if token == MASK:
                predicted |= {place + i: ALPHABET[base] for i, base in enumerate(targets) if base != IGNORED}
            else:
                assert names[token] == sequence[place : place + k]
                assert targets == [IGNORED] * k
                shown[place : place + k] = names[token]
        assert not any(shown[base] != "?" for base in predicted)
        assert all(sequence[base] == letter for base, letter in predicted.items())
        assert bool(predicted) <= bool(batch.weight[row])
        hidden_bases += len(predicted)
        if insert_only:
            assert all(flanks[0] <= base < length - flanks[1] for base in predicted)
    assert hidden_bases > 100


@pytest.mark.parametrize("architecture", ARCHITECTURE)
def test_loss_equals_that_of_stock_token_classification(made, batch, architecture):
    """Loss, counts and gradients; and in evaluation those of the bases in the insert."""
    torch.manual_seed(0)
    config = on_spans(without_dropout(made.config, layers=2, **ARCHITECTURE[architecture]))
    task = build_task(config, read_index(made.shards), "pretrain").train()
    assert [task.model.config.id2label[i] for i in range(12)] == name_base_outputs(3)
    here = to_device(task, batch)
    read, attention_mask, target = task.hide_batch(here)
    logits = task.model(input_ids=read, attention_mask=attention_mask).logits[:, 1:-1].unflatten(-1, (3, BASES))
    chosen = target != IGNORED
    loss = F.cross_entropy(logits[chosen], target[chosen], reduction="sum")
    loss.backward()
    plain = [p.grad.clone() for p in task.model.parameters()]
    task.zero_grad()
    sums = task(here)
    sums.loss.backward()
    assert sums.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert sums.count == chosen.sum()
    assert sums.correct == (logits.argmax(-1) == target)[chosen].sum()
    assert not sums.inside.any()
    for one, other in zip(plain, (p.grad for p in task.model.parameters()), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        inside = task.eval()(here).inside
    place = torch.arange(target.shape[1])[:, None] + torch.arange(3)
    left, right = task.flanks
    in_insert = chosen & (place >= left) & (place < here.lengths[:, None, None] - right)
    assert inside[1] == in_insert.sum() > 0
    expected = F.cross_entropy(logits[in_insert], target[in_insert], reduction="sum")
    assert inside[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_spans_are_a_function_of_the_step(made, batch):
    task = SpanTask(torch.nn.Identity(), 3, 0.2)
    reads = [task.hide_batch(to_device(task, batch, step))[0] for step in (0, 0, 1)]
    assert torch.equal(reads[0], reads[1])
    assert not torch.equal(reads[0], reads[2])
