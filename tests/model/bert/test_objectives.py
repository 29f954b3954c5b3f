from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertForMaskedLM

from model.bert.build import build_regression_model, build_task, make_bert_config
from model.bert.device_batch import batch_to_device
from model.bert.flops import make_stage_cost
from model.bert.forward import ExpressionHead
from model.bert.frames import TOKEN_MODES, choose_width, cut_reading_frames, select_frames
from model.bert.masking import IGNORED, find_masked_positions, mask_kmers
from model.bert.objectives import FinetuneTask, PretrainTask, average_over_frames
from model.bert.rng import make_generator
from model.prediction.predictor import to_half
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream

CPU = torch.device("cpu")


def without_dropout(config, **size):
    return config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0, **size})})


def on_spans(config):
    """The config with pretraining on hidden spans of overlapping k-mers."""
    pretrain = config.pretrain.model_copy(update={"objective": "spans"})
    finetune = config.finetune.model_copy(update={"tokens": "overlapping"})
    return config.model_copy(update={"pretrain": pretrain, "finetune": finetune})


def make_task(config, index, stage):
    """The task of a stage in training; `spans` is pretraining on hidden spans."""
    if stage == "pretrain":
        return PretrainTask(BertForMaskedLM(make_bert_config(config, index)), 3, 0.15)
    if stage == "spans":
        return build_task(on_spans(config), index, "pretrain").train()
    return FinetuneTask(build_regression_model(config, index, None), 3, 10.0, 2.0)


MODERN = {"architecture": "modernbert", "attention_window": 6, "intermediate": 24}
ARCHITECTURE = {"bert": {}, "modernbert": MODERN}
"""Settings of the model, by name; the window is shorter than the sequences."""


def steps(made, micro=1, ranks=1, batch=50):
    index = read_index(made.shards)
    streams = [
        ShardStream(made.shards, index, "finetune/train", batch, RankSlice(r, ranks, micro)) for r in range(ranks)
    ]
    return zip(*(s.epoch(0) for s in streams), strict=True)


def equal_up_to_a_tie(one, other):
    """Sums in another order differ in the last digits, which may decide between two equal logits."""
    return abs(one - other) <= 1


@pytest.mark.parametrize("architecture", ARCHITECTURE)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("mode", TOKEN_MODES)
def test_expression_equals_stock_transformers(made, layers, mode, architecture):
    """Outputs and all gradients are equal, although the last layer is computed for the [CLS] only."""
    torch.manual_seed(0)
    finetune = made.config.finetune.model_copy(update={"tokens": mode})
    size = {"layers": layers, **ARCHITECTURE[architecture]}
    config = without_dropout(made.config, **size).model_copy(update={"finetune": finetune})
    model = build_regression_model(config, read_index(made.shards), None).train()
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    frames = TOKEN_MODES[mode](tokens, lengths, 3)
    results = []
    for output in (
        model(input_ids=frames.input_ids.flatten(0, 1), attention_mask=frames.attention_mask.flatten(0, 1)).logits,
        average_over_frames(model, tokens, lengths, 3, mode),
    ):
        output = output.view(len(tokens), -1).mean(1)
        model.zero_grad()
        (output * torch.from_numpy(batch.expression)).sum().backward()
        results.append([output.detach(), *(p.grad for p in model.parameters())])
    for plain, ours in zip(*results, strict=True):
        assert torch.allclose(plain, ours, rtol=1e-4, atol=1e-5)


def test_insert_only_masking_equals_full_masking_inside_the_insert(made):
    """With the same draws, k-mers wholly inside the insert are masked alike, and no others are masked."""
    model = torch.nn.Identity()
    both = [PretrainTask(model, 3, 0.3, (7, 6), insert_only) for insert_only in (False, True)]
    batch = next(steps(made, batch=64))[0].micro_batches[0]
    draws = both[0].draw(batch, make_generator(CPU, "insert"))
    here = batch_to_device(batch, both[0].choose_width(batch, CPU), draws, CPU)
    (sentence_read, _, sentence_labels), (insert_read, _, insert_labels) = (task.mask_batch(here) for task in both)
    inside = both[0].find_masked_in_insert(here, sentence_labels)
    assert torch.equal(insert_labels, torch.where(inside, sentence_labels, IGNORED))
    unmasked = select_frames(cut_reading_frames(here.tokens, here.lengths, 3), draws.frame).input_ids
    assert torch.equal(insert_read, torch.where(inside, sentence_read, unmasked))
    assert 0 < inside.sum() < (sentence_labels != IGNORED).sum()
    everything = PretrainTask(model, 3, 0.999999, (7, 6), insert_only=True)
    count = (everything.mask_batch(here)[2] != IGNORED).sum()
    assert everything.compute_normalizer(batch, draws) == pytest.approx(int(count), abs=0.01)


@pytest.mark.parametrize(("loss", "torch_loss"), [("mse", torch.nn.MSELoss), ("smooth_l1", torch.nn.SmoothL1Loss)])
def test_loss_uses_standardized_labels(made, loss, torch_loss):
    model = build_regression_model(without_dropout(made.config), read_index(made.shards), None)
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    task = FinetuneTask(model, 3, 10.0, 2.0, loss=loss)
    sums = task(batch_to_device(batch, task.choose_width(batch, CPU), None, CPU))
    labels = (torch.from_numpy(batch.expression) - 10) / 2
    expected = torch_loss(reduction="sum")((sums.prediction - 10) / 2, labels)
    assert sums.loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURE)
def test_masked_loss_equals_stock_transformers(made, architecture):
    """Loss, counts and gradients are equal, although last layer and head are computed for the masked k-mers only."""
    torch.manual_seed(0)
    config = without_dropout(made.config, layers=2, **ARCHITECTURE[architecture])
    task = build_task(config, read_index(made.shards), "pretrain").train()
    model = task.model
    batch = next(steps(made, batch=200))[0].micro_batches[0]
    batch = replace(batch, weight=np.arange(len(batch.id), dtype=np.float32) % 2)
    draws = task.draw(batch, make_generator(CPU, "a step"))
    here = batch_to_device(batch, task.choose_width(batch, CPU), draws, CPU)
    frames = select_frames(cut_reading_frames(here.tokens, here.lengths, 3), draws.frame)
    read, labels = mask_kmers(frames.input_ids, frames.kmers, here.draws, 0.15)
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
    assert equal_up_to_a_tie(sums.correct, (logits.argmax(-1) == labels).sum())
    for one, other in zip(plain, (p.grad for p in model.parameters()), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_masked_positions_hold_all_masked_tokens_with_little_padding():
    labels = torch.where(torch.rand(1000, 100, generator=torch.Generator().manual_seed(1)) < 0.15, 7, IGNORED)
    positions, count = find_masked_positions(labels, 0.15), int((labels != IGNORED).sum())
    assert torch.equal(positions[:count], (labels.flatten() == 7).nonzero()[:, 0])
    assert not positions[count:].any()
    assert count < len(positions) < 1.1 * count
    assert len(find_masked_positions(labels[:1, :10], 0.15)) == 10  # few tokens: all of them may be masked


def test_widths_are_exact_on_a_cpu_and_few_on_a_gpu():
    assert [choose_width(bases, "frames", 3, CPU) for bases in (80, 81, 82, 83, 84)] == [78, 81, 81, 81, 84]
    assert choose_width(110, "overlapping", 3, CPU) == 110
    cuda = torch.device("cuda")
    assert {choose_width(bases, "frames", 3, cuda) // 3 + 2 for bases in range(360, 381)} == {128}
    assert {choose_width(bases, "overlapping", 3, cuda) + 2 for bases in range(360, 391)} == {368, 376, 384, 392}
    assert choose_width(0, "frames", 3, CPU) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURE)
@pytest.mark.parametrize("stage", ["pretrain", "spans", "finetune"])
def test_operation_count_equals_that_of_torch(made, stage, architecture):
    """For sequences of equal length; torch also counts the padding of the masked positions, hence the tolerance."""
    index = read_index(made.shards)
    config = without_dropout(made.config, layers=3, **ARCHITECTURE[architecture])
    if stage == "spans":
        stage, config = "pretrain", on_spans(config)
    batch = next(steps(made, batch=400))[0].micro_batches[0]
    longest = int(batch.global_lengths.max())
    batch = replace(batch, lengths=np.full_like(batch.lengths, longest), global_lengths=np.full(400, longest))
    task = build_task(config, index, stage).train()
    draws = task.draw(batch, make_generator(CPU, "a step"))
    here = batch_to_device(batch, task.choose_width(batch, CPU), draws, CPU)
    # torch cannot count the operations of the CPU's fused attention.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        task(here).loss.backward()
    _, operations = make_stage_cost(config, index, stage).count(batch.global_lengths)
    assert counter.get_total_flops() == pytest.approx(operations, rel=0.07)


def test_each_further_label_costs_a_product_per_frame(made):
    index, lengths = read_index(made.shards), np.array([100, 110])
    several = replace(index, labels=["a", "b", "c"], label_mean=[0.0] * 3, label_sd=[1.0] * 3)
    (_, one), (_, three) = (make_stage_cost(made.config, each, "finetune").count(lengths) for each in (index, several))
    assert three - one == 3 * 2 * made.config.model.hidden * 2 * len(lengths) * index.k


def test_squared_error_on_standardized_labels_equals_numpy(made):
    torch.manual_seed(0)
    model = build_regression_model(without_dropout(made.config), read_index(made.shards), None)
    batch = next(steps(made))[0].micro_batches[0]
    batch = replace(batch, weight=np.arange(len(batch.id), dtype=np.float32) % 2)
    task = FinetuneTask(model, 3, label_mean=10.0, label_sd=2.0)
    sums = task(batch_to_device(batch, task.choose_width(batch, CPU), None, CPU))
    with torch.no_grad():
        output = average_over_frames(model, torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths), 3).numpy()
    errors = output - (batch.expression - 10) / 2
    assert sums.loss.item() == pytest.approx((errors**2 * batch.weight).sum(), rel=1e-5)
    assert sums.count == batch.weight.sum()
    assert sums.prediction.numpy() == pytest.approx(output * 2 + 10, rel=1e-5)


@pytest.mark.parametrize("stage", ["pretrain", "spans", "finetune"])
def test_sums_and_gradients_do_not_depend_on_the_split_of_the_global_batch(made, stage):
    """This includes more micro-batches than rows: an empty micro-batch adds nothing."""
    torch.manual_seed(0)
    index = read_index(made.shards)
    config = without_dropout(made.config)
    task = make_task(config, index, stage)
    results = []
    for ranks, micro in ((1, 1), (1, 7), (3, 2), (5, 12)):
        together = next(steps(made, micro, ranks, batch=50))
        task.zero_grad()
        loss = count = correct = 0.0
        for step in together:
            draws = task.draw(step.micro_batches[0], make_generator(CPU, "a step"))
            normalizer = float(task.compute_normalizer(step.micro_batches[0], draws))
            for batch in step.micro_batches:
                sums = task(batch_to_device(batch, task.choose_width(batch, CPU), draws, CPU))
                (sums.loss / normalizer).backward()
                loss, count, correct = loss + sums.loss.item(), count + sums.count.item(), correct + sums.correct.item()
        gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])
        results.append((loss, count, correct, normalizer, gradient))
    for loss, count, correct, normalizer, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert (count, normalizer) == (results[0][1], results[0][3])
        assert equal_up_to_a_tie(correct, results[0][2])
        assert torch.allclose(gradient, results[0][4], atol=1e-6)
    if stage != "finetune":
        assert results[0][1] == pytest.approx(results[0][3], rel=0.25)  # number of masked tokens, and its expectation


def test_prediction_does_not_depend_on_other_rows_or_padding(made):
    torch.manual_seed(0)
    model = build_regression_model(made.config, read_index(made.shards), None).eval()
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    with torch.inference_mode():
        together = average_over_frames(model, tokens, lengths, 3)
        wider = average_over_frames(model, torch.nn.functional.pad(tokens, (0, 16)), lengths, 3)
        alone = [
            average_over_frames(model, tokens[i : i + 1, :n], lengths[i : i + 1], 3) for i, n in enumerate(lengths)
        ]
    assert torch.allclose(together, wider, atol=1e-5)
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_half_precision_changes_predictions_by_less_than_0_002(made):
    """On the scale of the labels, where adjacent fp16 numbers differ by 0.008."""
    torch.manual_seed(0)
    model = build_regression_model(made.config, read_index(made.shards), None).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
        model.classifier.bias.fill_(11.0)
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    with torch.inference_mode():
        exact = average_over_frames(model, tokens, lengths, 3)
        to_half(model)
        half = average_over_frames(model, tokens, lengths, 3)
    assert half.dtype == torch.float32
    assert torch.allclose(half, exact, rtol=0, atol=2e-3)
    assert len(half.unique()) > 30


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_evaluation_in_training_does_not_round_its_outputs_to_half_precision(made, dtype):
    """All weights are in half precision, as in DeepSpeed's engine.

    The outputs of the untrained model differ by far less than adjacent numbers, so rounding would make them equal.
    """
    torch.manual_seed(0)
    model = build_regression_model(made.config, read_index(made.shards), None)
    with torch.no_grad():
        model.classifier.weight.mul_(4)
        model.classifier.bias.fill_(11.0)
    task = FinetuneTask(model, 3, label_mean=0.0, label_sd=1.0).to(dtype).eval()
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    here = batch_to_device(batch, task.choose_width(batch, CPU), None, CPU)
    with torch.inference_mode():
        half = task(here).prediction
        exact = task.float()(here).prediction
    step = 8.0 * torch.finfo(dtype).eps  # distance of adjacent numbers between 8 and 16
    assert half.dtype == torch.float32
    assert exact.max() - exact.min() < step / 4
    assert len(half.unique()) > 20
    assert (half - exact).abs().max() < step / 4


def test_expression_head_equals_a_linear_layer_in_float32():
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 1)
    state = torch.get_rng_state()
    head = ExpressionHead.replace(linear)
    assert torch.equal(state, torch.get_rng_state())  # later random numbers are those of a model without it
    rows = torch.randn(50, 16)
    for mode in (True, False):
        assert torch.equal(head.train(mode)(rows), linear(rows))
    assert head.weight is linear.weight
    assert head.bias is linear.bias
