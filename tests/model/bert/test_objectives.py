from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertForMaskedLM

from model.bert.build import bert_config, regression_model
from model.bert.device_batch import batch_to_device
from model.bert.flops import stage_cost
from model.bert.frames import TOKEN_MODES, one_frame, read_width, reading_frames
from model.bert.masking import IGNORED, mask, masked_places
from model.bert.objectives import FinetuneTask, PretrainTask, mean_over_frames
from model.bert.rng import generator
from model.prediction.predictor import to_half
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream

CPU = torch.device("cpu")


def without_dropout(config, **size):
    return config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0, **size})})


def steps(made, micro=1, ranks=1, batch=50):
    index = read_index(made.shards)
    streams = [
        ShardStream(made.shards, index, "finetune/train", batch, RankSlice(r, ranks, micro)) for r in range(ranks)
    ]
    return zip(*(s.epoch(0) for s in streams), strict=True)


def same_hits(one, other):
    """Equal but for a tie: sums in another order differ in the last digits, which may turn one of two equal logits."""
    return abs(one - other) <= 1


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("mode", TOKEN_MODES)
def test_expression_is_that_of_the_whole_stock_model(made, layers, mode):
    """Outputs and gradients of every weight, though the last layer is worked out for the [CLS] only."""
    torch.manual_seed(0)
    finetune = made.config.finetune.model_copy(update={"tokens": mode})
    config = without_dropout(made.config, layers=layers).model_copy(update={"finetune": finetune})
    model = regression_model(config, read_index(made.shards), None).train()
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    frames = TOKEN_MODES[mode](tokens, lengths, 3)
    found = []
    for output in (
        model(input_ids=frames.input_ids.flatten(0, 1), attention_mask=frames.attention_mask.flatten(0, 1)).logits,
        mean_over_frames(model, tokens, lengths, 3, mode),
    ):
        output = output.view(len(tokens), -1).mean(1)
        model.zero_grad()
        (output * torch.from_numpy(batch.expression)).sum().backward()
        found.append([output.detach(), *(p.grad for p in model.parameters())])
    for plain, ours in zip(*found, strict=True):
        assert torch.allclose(plain, ours, rtol=1e-4, atol=1e-5)


def test_masking_the_insert_alone_masks_what_the_sentences_masking_has_there(made):
    """Same draws: what is wholly inside is masked alike, nothing else is, and as many are expected."""
    model = torch.nn.Identity()
    both = [PretrainTask(model, 3, 0.3, (7, 6), insert_only) for insert_only in (False, True)]
    batch = next(steps(made, batch=64))[0].micro_batches[0]
    draws = both[0].draws(batch, generator(CPU, "insert"))
    here = batch_to_device(batch, both[0].width(batch, CPU), draws, CPU)
    (sentence_read, _, sentence_labels), (insert_read, _, insert_labels) = (task.mask_batch(here) for task in both)
    inside = both[0].masked_in_insert(here, sentence_labels)
    assert torch.equal(insert_labels, torch.where(inside, sentence_labels, IGNORED))
    unmasked = one_frame(reading_frames(here.tokens, here.lengths, 3), draws.frame).input_ids
    assert torch.equal(insert_read, torch.where(inside, sentence_read, unmasked))
    assert 0 < inside.sum() < (sentence_labels != IGNORED).sum()
    everything = PretrainTask(model, 3, 0.999999, (7, 6), insert_only=True)
    count = (everything.mask_batch(here)[2] != IGNORED).sum()
    assert everything.normaliser(batch, draws) == pytest.approx(int(count), abs=0.01)


@pytest.mark.parametrize(("loss", "torchs"), [("mse", torch.nn.MSELoss), ("smooth_l1", torch.nn.SmoothL1Loss)])
def test_the_loss_is_that_of_standardised_labels(made, loss, torchs):
    model = regression_model(without_dropout(made.config), read_index(made.shards), None)
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    task = FinetuneTask(model, 3, 10.0, 2.0, loss=loss)
    sums = task(batch_to_device(batch, task.width(batch, CPU), None, CPU))
    labels = (torch.from_numpy(batch.expression) - 10) / 2
    expected = torchs(reduction="sum")((sums.prediction - 10) / 2, labels)
    assert sums.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_masked_loss_is_that_of_the_whole_stock_model(made):
    """Loss, count, hits and gradients, though last layer and head are worked out for the masked k-mers only."""
    torch.manual_seed(0)
    model = BertForMaskedLM(bert_config(without_dropout(made.config, layers=2), read_index(made.shards))).train()
    task = PretrainTask(model, 3, 0.15)
    batch = next(steps(made, batch=200))[0].micro_batches[0]
    batch = replace(batch, weight=np.arange(len(batch.id), dtype=np.float32) % 2)
    draws = task.draws(batch, generator(CPU, "a step"))
    here = batch_to_device(batch, task.width(batch, CPU), draws, CPU)
    frames = one_frame(reading_frames(here.tokens, here.lengths, 3), draws.frame)
    read, labels = mask(frames.input_ids, frames.kmers, draws, 0.15)
    labels[::2] = IGNORED
    logits = model(input_ids=read, attention_mask=frames.attention_mask).logits
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    loss.backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sums = task(here)
    sums.loss.backward()
    assert sums.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert sums.count == (labels != IGNORED).sum()
    assert same_hits(sums.correct, (logits.argmax(-1) == labels).sum())
    for one, other in zip(plain, (p.grad for p in model.parameters()), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_there_is_room_for_all_masked_places_and_not_for_all_tokens():
    labels = torch.where(torch.rand(1000, 100, generator=torch.Generator().manual_seed(1)) < 0.15, 7, IGNORED)
    places, count = masked_places(labels, 0.15), int((labels != IGNORED).sum())
    assert torch.equal(places[:count], (labels.flatten() == 7).nonzero()[:, 0])
    assert not places[count:].any()
    assert count < len(places) < 1.1 * count
    assert len(masked_places(labels[:1, :10], 0.15)) == 10  # few tokens: all of them may be masked


def test_widths_are_exact_on_a_cpu_and_few_on_a_gpu():
    assert [read_width(bases, "frames", 3, CPU) for bases in (80, 81, 82, 83, 84)] == [78, 81, 81, 81, 84]
    assert read_width(110, "overlapping", 3, CPU) == 110
    cuda = torch.device("cuda")
    assert {read_width(bases, "frames", 3, cuda) // 3 + 2 for bases in range(360, 381)} == {128}
    assert {read_width(bases, "overlapping", 3, cuda) + 2 for bases in range(360, 391)} == {368, 376, 384, 392}
    assert read_width(0, "frames", 3, CPU) == 0


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_operations_are_those_that_torch_counts(made, stage):
    """Of sequences of one length; torch counts the room for masked k-mers, which is a little more than are expected."""
    index = read_index(made.shards)
    config = without_dropout(made.config, layers=3)
    batch = next(steps(made, batch=400))[0].micro_batches[0]
    longest = int(batch.global_lengths.max())
    batch = replace(batch, lengths=np.full_like(batch.lengths, longest), global_lengths=np.full(400, longest))
    if stage == "pretrain":
        task = PretrainTask(BertForMaskedLM(bert_config(config, index)), 3, config.pretrain.mask_share)
    else:
        task = FinetuneTask(regression_model(config, index, None), 3, 10.0, 2.0)
    draws = task.draws(batch, generator(CPU, "a step"))
    here = batch_to_device(batch, task.width(batch, CPU), draws, CPU)
    # The CPU's fused attention is none of those whose operations torch counts.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        task(here).loss.backward()
    _, operations = stage_cost(config, index, stage).of(batch.global_lengths)
    assert counter.get_total_flops() == pytest.approx(operations, rel=0.07)


def test_squared_error_on_standardised_labels_by_hand(made):
    torch.manual_seed(0)
    model = regression_model(without_dropout(made.config), read_index(made.shards), None)
    batch = next(steps(made))[0].micro_batches[0]
    batch = replace(batch, weight=np.arange(len(batch.id), dtype=np.float32) % 2)
    task = FinetuneTask(model, 3, label_mean=10.0, label_sd=2.0)
    sums = task(batch_to_device(batch, task.width(batch, CPU), None, CPU))
    with torch.no_grad():
        output = mean_over_frames(model, torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths), 3).numpy()
    errors = output - (batch.expression - 10) / 2
    assert sums.loss.item() == pytest.approx((errors**2 * batch.weight).sum(), rel=1e-5)
    assert sums.count == batch.weight.sum()
    assert sums.prediction.numpy() == pytest.approx(output * 2 + 10, rel=1e-5)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_sums_and_gradients_do_not_depend_on_the_split_of_the_global_batch(made, stage):
    """Also with more parts than rows: a part without rows adds nothing."""
    torch.manual_seed(0)
    index = read_index(made.shards)
    config = without_dropout(made.config)
    task = (
        PretrainTask(BertForMaskedLM(bert_config(config, index)), 3, 0.15)
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
                sums = task(batch_to_device(batch, task.width(batch, CPU), draws, CPU))
                (sums.loss / normaliser).backward()
                loss, count, correct = loss + sums.loss.item(), count + sums.count.item(), correct + sums.correct.item()
        gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])
        found.append((loss, count, correct, normaliser, gradient))
    for loss, count, correct, normaliser, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert (count, normaliser) == (found[0][1], found[0][3])
        assert same_hits(correct, found[0][2])
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


def test_half_precision_changes_a_prediction_by_a_thousandth(made):
    """As on a GPU; on the scale of the labels, where numbers in fp16 are 0.008 apart."""
    torch.manual_seed(0)
    model = regression_model(made.config, read_index(made.shards), None).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
        model.classifier.bias.fill_(11.0)
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    with torch.inference_mode():
        exact = mean_over_frames(model, tokens, lengths, 3)
        to_half(model)
        half = mean_over_frames(model, tokens, lengths, 3)
    assert half.dtype == torch.float32
    assert torch.allclose(half, exact, rtol=0, atol=2e-3)
    assert len(half.unique()) > 30
