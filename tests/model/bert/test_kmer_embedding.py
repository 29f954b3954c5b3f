"""Composed k-mer embeddings: vectors, gradients, and the stock model that they are exported to."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.bert.build import build_regression_model, build_task, count_parameters, make_bert_config
from model.bert.device_batch import batch_to_device
from model.bert.forward import compute_expression_logits, compute_kmer_logits
from model.bert.frames import cut_reading_frames, take_overlapping_kmers
from model.bert.kmer_embedding import (
    BASES,
    COMPOSITION,
    SCALE,
    ComposedKmerEmbedding,
    count_pairs,
    read_composition,
    split_composition,
    write_composition,
)
from model.bert.rng import make_generator
from model.prediction.predictor import to_half
from model.training.checkpointing.hf_export import export_model
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.tokens.kmers import SPECIALS, encode_text, vocabulary
from tests.model.bert.test_objectives import ARCHITECTURE, CPU, steps, without_dropout


def composed(made, architecture, **size):
    return without_dropout(made.config, kmer_embedding="composed", **ARCHITECTURE[architecture], **size)


def random_embedding(k, width=8):
    """An embedding whose gain and shift are not those of the start."""
    torch.manual_seed(k)
    embedding = ComposedKmerEmbedding(k, width)
    with torch.no_grad():
        for weights in embedding.parameters():
            weights.add_(torch.randn_like(weights) * 0.3)
    return embedding


@pytest.mark.parametrize("k", [1, 3, 6])
def test_vectors_are_a_standardized_convolution_over_one_hot_bases(k):
    """A k-mer's vector is that of torch's convolution and batch normalization by the statistics of all k-mers."""
    embedding = random_embedding(k)
    kmers = ["".join(bases) for bases in product("ACGT", repeat=k)]
    one_hot = torch.tensor([[["ACGT".index(base) == b for base in kmer] for b in range(BASES)] for kmer in kmers])
    z = F.conv1d(one_hot.float(), embedding.bases.permute(2, 1, 0))[:, :, 0]
    normal = F.batch_norm(z, None, None, embedding.gain, embedding.shift, training=True)
    expected = embedding.projection(F.gelu(normal)) * SCALE
    ids = torch.tensor([int(encode_text(kmer, k)[0]) for kmer in kmers])
    assert torch.allclose(embedding(ids), expected, atol=1e-4)
    table = embedding.all_vectors()
    assert torch.equal(table[: len(SPECIALS)], embedding.specials)
    assert torch.allclose(table[ids], embedding(ids), atol=1e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_statistics_are_those_of_the_counted_kmers(k):
    """Batch normalization over all complete k-mers of sequences rich in A, with runs of A and without N."""
    embedding = random_embedding(k)
    draws = np.random.default_rng(k)
    rows = ["A" * 5 + "".join(draws.choice(list("AAACGT"), length)) for length in (30, 12, 25)]
    encoded = [encode_text(row, k).astype(np.int64) for row in rows]
    width = max(map(len, encoded))
    ids = torch.from_numpy(np.stack([np.pad(row, (0, width - len(row))) for row in encoded]))
    lengths = torch.tensor([len(row) for row in rows])
    embedding.eval().pairs.copy_(count_pairs(ids, lengths, k))
    one_hot = F.one_hot(torch.tensor(["ACGT".index(b) for row in rows for b in row]), BASES).float()
    parts = one_hot.split(lengths.tolist())
    z = torch.cat([F.conv1d(part.T[None], embedding.bases.permute(2, 1, 0))[0].T for part in parts])
    normal = F.batch_norm(z, None, None, embedding.gain, embedding.shift, training=True)
    expected = embedding.projection(F.gelu(normal)) * SCALE
    assert embedding.pairs[-1, -1] == len(expected)
    parts = [count_pairs(ids[row : row + 1], lengths[row : row + 1], k) for row in range(len(rows))]
    assert torch.equal(sum(parts), embedding.pairs)  # whatever the micro-batches
    complete = torch.cat([torch.from_numpy(row[: len(row) - k + 1]) for row in encoded])
    assert torch.allclose(embedding(complete), expected, atol=1e-4)
    copy = embedding.pairs.clone()
    assert torch.equal(embedding.half().pairs, copy)  # half precision does not round them


def test_n_is_no_base():
    """Before the non-linearity, an N counts as the mean of the four bases, and a k-mer of Ns is the shift alone."""
    embedding = random_embedding(3)
    ids = {name: i for i, name in enumerate(vocabulary(3))}
    values = embedding(torch.tensor([ids["NNN"]]))
    assert torch.allclose(values, embedding.projection(F.gelu(embedding.shift))[None] * SCALE, atol=1e-6)
    w = embedding._standardized().reshape(-1, 3, BASES)
    assert torch.allclose(w.mean(-1), torch.zeros(()), atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURE)
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_exported_stock_model_has_the_outputs_of_the_trained_one(made, tmp_path, stage, architecture):
    """Loaded by stock transformers; every output differs by at most 1e-6 of the largest."""
    torch.manual_seed(0)
    index = read_index(made.shards)
    config = composed(made, architecture, layers=2)
    model = build_task(config, index, stage).eval().model
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.3)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    stock, network = split_composition(model, weights)
    flat = replace(index, label_mean=0.0, label_sd=1.0)
    export_model(type(model)(model.config), stock, config, flat, tmp_path / "model")
    write_composition(tmp_path / "model", network)
    loaded = type(model).from_pretrained(tmp_path / "model", attn_implementation="sdpa").eval()
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    cut = cut_reading_frames if stage == "pretrain" else take_overlapping_kmers
    frames = cut(tokens, lengths, 3)
    ids, attention = frames.input_ids.flatten(0, 1), frames.attention_mask.flatten(0, 1)
    with torch.inference_mode():
        expected = loaded(input_ids=ids, attention_mask=attention).logits
        if stage == "pretrain":
            read = attention.flatten().nonzero()[:, 0]
            ours = compute_kmer_logits(model, ids, attention, read)
            expected = expected.flatten(0, 1)[read]
        else:
            ours, expected = compute_expression_logits(model, ids, attention), expected[:, 0]
    assert expected.std() > 1e-2
    assert (ours - expected).abs().max() <= 1e-6 * max(1.0, float(expected.abs().max()))
    assert set(read_composition(tmp_path / "model", 3, 16)) == set(network)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_gradients_are_those_of_the_table_through_the_composition(made, stage):
    """The stock model's gradient of its table, with that of the tied decoder, carried on by the chain rule."""
    torch.manual_seed(0)
    index = read_index(made.shards)
    config = composed(made, "bert", layers=2)
    task = build_task(config, index, stage).train()
    embedding = task.model.get_input_embeddings()
    table_config = config.model_copy(update={"model": config.model.model_copy(update={"kmer_embedding": "table"})})
    other = build_task(table_config, index, stage).train()
    stock, _ = split_composition(task.model, {n: p.detach().clone() for n, p in task.model.named_parameters()})
    other.model.load_state_dict(stock, strict=False)
    batch = next(steps(made, batch=60))[0].micro_batches[0]
    draws = task.draw(batch, make_generator(CPU, "a step"))
    here = batch_to_device(batch, task.choose_width(batch, CPU), draws, CPU)
    for one in (task, other):
        one(here).loss.backward()
    vectors = embedding.all_vectors()
    table_gradient = other.model.get_input_embeddings().weight.grad
    expected = torch.autograd.grad(vectors, list(embedding.parameters()), table_gradient)
    for (name, weights), gradient in zip(embedding.named_parameters(), expected, strict=True):
        scale = float(gradient.abs().max())
        assert scale > 0, name
        assert torch.allclose(weights.grad, gradient, rtol=1e-3, atol=1e-4 * scale), name


def test_weights_are_few_and_do_not_grow_with_the_vocabulary(made):
    index = read_index(made.shards)
    size = make_bert_config(made.config, index)
    table, few = count_parameters(size), count_parameters(size, is_composed=True)
    trained = sum(p.numel() for p in build_task(composed(made, "bert"), index, "finetune").parameters())
    assert few == trained
    channels = 2 * 16
    network = 5 * 16 + 3 * BASES * channels + 2 * channels + channels * 16 + 16
    assert table - few == 130 * 16 - network


def test_half_precision_is_close(made):
    """fp16 weights, as on a GPU; the standardization is in float32."""
    torch.manual_seed(0)
    model = build_task(composed(made, "modernbert", layers=2), read_index(made.shards), "finetune").eval().model
    batch = next(steps(made, batch=40))[0].micro_batches[0]
    frames = take_overlapping_kmers(torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths), 3)
    ids, attention = frames.input_ids.flatten(0, 1), frames.attention_mask.flatten(0, 1)
    with torch.inference_mode():
        exact = compute_expression_logits(model, ids, attention)
        to_half(model)
        half = compute_expression_logits(model, ids, attention)
    assert half.dtype == torch.float32
    assert torch.allclose(half, exact, atol=5e-3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "its k-mer embedding is a table"),
        (lambda path: path.write_bytes(b"no tensors"), "cannot be read"),
        (lambda path: write_composition(path.parent, ComposedKmerEmbedding(4, 16).state_dict()), "not the k-mer net"),
    ],
)
def test_a_folder_without_the_network_is_refused_in_one_line(tmp_path, damage, message):
    write_composition(tmp_path, ComposedKmerEmbedding(3, 16).state_dict())
    damage(tmp_path / COMPOSITION)
    with pytest.raises(UserError, match=message) as error:
        read_composition(tmp_path, 3, 16)
    assert "\n" not in str(error.value)


def test_regression_model_without_the_setting_is_stock(made):
    """The default allocates a table, in the same order of random numbers as before."""
    torch.manual_seed(0)
    ours = build_task(made.config, read_index(made.shards), "finetune").model
    torch.manual_seed(0)
    stock = build_regression_model(made.config, read_index(made.shards), None)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), stock.parameters(), strict=True))
