"""Bins of the label: labels and expected values, loss and gradient, the exported stock model, refusals."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from model.bert.bins import bin_centres, check_noise_settings, compute_expected_value, share_labels
from model.bert.build import build_task
from model.bert.device_batch import batch_to_device
from model.bert.frames import TOKEN_MODES
from model.bert.objectives import BinsTask, FinetuneTask
from model.export.onnx import encode_bases, example_promoters
from model.export.onnx_graph import SequenceRegressor
from model.prediction.predictor import Predictor
from model.training.checkpointing.hf_export import export_model
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream

CPU = torch.device("cpu")
MODERN = {"architecture": "modernbert", "attention_window": 6}


def with_bins(config, architecture="bert", tokens="frames", **finetune):
    """Return the settings with 18 bins, without dropout."""
    size = {"dropout": 0.0, **(MODERN if architecture == "modernbert" else {})}
    changes = {
        "model": config.model.model_copy(update=size),
        "finetune": config.finetune.model_copy(update={"loss": "bins", "tokens": tokens, **finetune}),
    }
    return config.model_copy(update=changes)


def enlarge(model):
    """Enlarge the random weights of the layers, so that the predictions of different promoters differ."""
    for part in model.modules():
        if isinstance(part, torch.nn.Linear):
            part.weight.data.mul_(10)


def make_task(made, **settings):
    torch.manual_seed(0)
    task = build_task(with_bins(made.config, **settings), read_index(made.shards), "finetune")
    enlarge(task.model)
    return task


def micro_batches(made, ranks=1, parts=1, rows=40):
    index = read_index(made.shards)
    slices = [RankSlice(rank, ranks, parts) for rank in range(ranks)]
    streams = [ShardStream(made.shards, index, "finetune/train", rows, one, seed=3) for one in slices]
    return [batch for stream in streams for batch in next(stream.epoch(0)).micro_batches]


def test_the_centres_are_the_sorting_bins_of_the_challenge(made):
    assert bin_centres(with_bins(made.config)) == list(range(18))
    assert bin_centres(made.config) == []
    assay = made.config.assay.model_copy(update={"min_expression": -2.0, "max_expression": 1.0})
    narrow = with_bins(made.config, bins=7).model_copy(update={"assay": assay})
    assert bin_centres(narrow) == pytest.approx([-2, -1.5, -1, -0.5, 0, 0.5, 1])


@pytest.mark.parametrize(("low", "high", "bins"), [(0, 17, 18), (-3.3, 2.9, 2), (-20, 20, 161)])
def test_the_expected_value_of_a_shared_label_is_the_label(low, high, bins):
    centres = torch.linspace(low, high, bins)
    labels = torch.cat([centres, torch.rand(500, generator=torch.Generator().manual_seed(1)) * (high - low) + low])
    shares = share_labels(labels, centres)
    assert shares.min() >= 0
    torch.testing.assert_close(shares.sum(1), torch.ones(len(labels)), rtol=0, atol=1e-5)
    torch.testing.assert_close(shares @ centres, labels, rtol=0, atol=2e-5)
    assert ((shares > 1e-6).sum(1) <= 2).all()
    # A model that has learned the distribution predicts the label.
    torch.testing.assert_close(compute_expected_value(shares.log(), centres), labels, rtol=0, atol=2e-5)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
@pytest.mark.parametrize("tokens", TOKEN_MODES)
def test_loss_and_gradients_equal_those_of_stock_outputs(made, architecture, tokens):
    task = make_task(made, architecture=architecture, tokens=tokens).train()
    assert isinstance(task, BinsTask)
    (batch,) = micro_batches(made)
    ids, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    frames, labels = TOKEN_MODES[tokens](ids, lengths, 3), torch.from_numpy(batch.expression)
    flat = frames.input_ids.flatten(0, 1), frames.attention_mask.flatten(0, 1)
    logits = task.model(input_ids=flat[0], attention_mask=flat[1]).logits.view(len(ids), -1, 18).mean(1)
    below = labels.floor().long().clamp(max=16)
    part = labels - below
    log_p = F.log_softmax(logits, -1)
    rows = torch.arange(len(ids))
    expected = -((1 - part) * log_p[rows, below] + part * log_p[rows, below + 1]).sum()
    expected.backward()
    plain = [p.grad.clone() for p in task.model.parameters() if p.grad is not None]
    task.zero_grad()
    sums = task(batch_to_device(batch, task.choose_width(batch, CPU), None, CPU))
    sums.loss.backward()
    assert sums.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert sums.count == len(ids)
    torch.testing.assert_close(sums.prediction, (log_p.exp() * torch.arange(18.0)).sum(1).detach())
    assert sums.prediction.std() > 1e-3
    ours = [p.grad for p in task.model.parameters() if p.grad is not None]
    assert max(gradient.abs().max() for gradient in plain) > 0.1
    for one, other in zip(plain, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_loss_and_gradient_do_not_depend_on_ranks_and_micro_batches(made):
    task = make_task(made).train()
    results = []
    for ranks, parts in ((1, 1), (2, 1), (3, 2)):
        task.zero_grad()
        total = 0.0
        for batch in micro_batches(made, ranks, parts):
            loss = task(batch_to_device(batch, task.choose_width(batch, CPU), None, CPU)).loss
            loss.backward()
            total += loss.item()
        results.append((total, task.model.classifier.weight.grad.clone()))
    for total, gradient in results[1:]:
        assert total == pytest.approx(results[0][0], rel=1e-5)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
@pytest.mark.parametrize("tokens", TOKEN_MODES)
def test_stock_outputs_of_the_export_give_the_prediction(made, tmp_path, architecture, tokens):
    """Task, Predictor, ONNX graph and held-out evaluation give what config.json says of stock outputs: to 1e-5."""
    task = make_task(made, architecture=architecture, tokens=tokens).eval()
    config, index = with_bins(made.config, architecture, tokens), read_index(made.shards)
    folder = tmp_path / "model"
    export_model(type(task.model)(task.model.config), task.model.state_dict(), config, index, folder)
    predictor = Predictor(folder, device=CPU)
    assert predictor.labels == ("expression",)
    promoters = example_promoters(predictor.assay.model_copy(update={"max_insert": 60}), 6)
    predictions = predictor.predict_valid(pa.array(promoters))
    assert predictions.shape == (6,)

    stock, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    facts = stock.config.promoter_bert
    assert stock.config.id2label == {bin: str(bin) for bin in range(18)}
    assert (facts["bins"], stock.config.problem_type) == (list(range(18)), "single_label_classification")
    assert "softmax" in facts["prediction"]
    assay, k, expected = predictor.assay, 3, []
    for promoter in promoters:
        insert = promoter[len(assay.left_adapter) : len(promoter) - len(assay.right_adapter)]
        extended = assay.left_flank + insert + assay.right_flank
        if tokens == "overlapping":
            texts = [" ".join(extended[i : i + k] for i in range(len(extended) - k + 1))]
        else:
            texts = [extended[f:] for f in range(k)]
        with torch.inference_mode():
            logits = stock.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits.mean(0)
        expected.append(sum(p * float(stock.config.id2label[i]) for i, p in enumerate(logits.softmax(-1).tolist())))
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(predictions, expected, rtol=0, atol=1e-5)
    graph = SequenceRegressor(predictor.model, assay, k, tokens).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(graph(torch.from_numpy(encode_bases(promoters))), expected, rtol=0, atol=1e-5)
        (batch,) = micro_batches(made)
        here = batch_to_device(batch, task.choose_width(batch, CPU), None, CPU)
        held_out = FinetuneTask(predictor.model, k, 0.0, 1.0, tokens).eval()(here)
        torch.testing.assert_close(held_out.prediction, task(here).prediction, rtol=0, atol=1e-5)
        errors = held_out.prediction - torch.from_numpy(batch.expression)
    assert held_out.loss.item() == pytest.approx((errors**2).sum().item(), rel=1e-5)


def test_one_label_and_narrow_bins_are_required(made):
    index = read_index(made.shards)
    check_noise_settings(with_bins(made.config), index)
    with pytest.raises(UserError, match=r"finetune\.bins: 4 bins .* fix: finetune\.bins="):
        check_noise_settings(with_bins(made.config, bins=4), index)
    several = replace(index, labels=["A", "B"])
    for settings in ({}, {"loss": "mse", "whole_number_flag": True}):
        with pytest.raises(UserError, match="expected one label, got 2"):
            check_noise_settings(with_bins(made.config, **settings), several)
    check_noise_settings(made.config, several)
