"""Passes of rows of similar length: cheaper, and equal to the uncut micro-batch."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from model.bert import length_cut
from model.bert.build import build_task
from model.bert.device_batch import batch_to_device, pass_to_device
from model.bert.length_cut import ModelInput, cut_by_length, join_rows
from model.bert.rng import make_generator
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FLANKS = 300
INPUTS = {"finetune": ModelInput("frames", 3, 3, GPU), "pretrain": ModelInput("frames", 3, 1, GPU)}


def count_tokens(lengths, k=3):
    """Tokens per reading frame, [CLS] and [SEP] included, as a mean over the frames: (rows,)."""
    return sum((lengths - frame) // k + 2 for frame in range(k)) / k


@pytest.fixture(scope="module")
def real_lengths(real_data):
    lines = (real_data / "dream_train_7k.tsv").read_text().splitlines()
    return np.array([len(line.partition("\t")[0]) - 30 + FLANKS for line in lines])


@pytest.mark.parametrize("stage", INPUTS)
@pytest.mark.parametrize("ranks", [1, 2, 16])
def test_padding_of_the_gpu_preset_on_real_lengths(real_lengths, stage, ranks):
    """4,096 promoters per step: at most 1 % padding on one rank (8 % uncut), three passes and three widths."""
    read, random = INPUTS[stage], np.random.default_rng(1)
    padded, uncut, real, full, widths = 0.0, 0.0, 0.0, 0.0, set()
    for _ in range(10):
        batch = random.choice(real_lengths, 4096)
        lengths = batch[: 4096 // ranks]
        width = read.width(int(batch.max()))
        passes = cut_by_length(lengths, width, read)
        assert len(passes) <= 3
        for one in passes:
            tokens = len(lengths[one.rows]) * (one.width // 3 + 2)
            padded, full = padded + tokens, full + tokens * one.is_full
            widths.add(one.width // 3 + 2)
        uncut += len(lengths) * (width // 3 + 2)
        real += count_tokens(lengths).sum()
    assert uncut / real > 1.07
    assert padded / real < {1: 1.01, 2: 1.015, 16: 1.04}[ranks]
    assert full / padded > 0.5
    assert widths <= {128, 136, 144}


def test_batches_of_the_papers_size_are_not_cut(real_lengths):
    for rows, stage in ((64, "finetune"), (128, "pretrain")):
        cpu = ModelInput("frames", 3, INPUTS[stage].frames, CPU)
        for first in range(0, 6400, rows):
            (one,) = cut_by_length(real_lengths[first : first + rows], 420, cpu)
            assert (one.rows, one.width) == (None, 420)


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=200), st.sampled_from(["frames", "overlapping"]),
    st.integers(1, 4), st.sampled_from([CPU, GPU]),
)  # fmt: skip
def test_every_row_is_in_one_pass_that_is_wide_enough(lengths, mode, k, device):
    lengths = np.array(lengths, np.int64) * 37
    read = ModelInput(mode, k, 3, device)
    passes = cut_by_length(lengths, read.width(int(lengths.max())), read)
    rows = np.arange(len(lengths))[join_rows(passes)]
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    for one in passes:
        own = lengths if one.rows is None else lengths[one.rows]
        step = k if mode == "frames" else 1
        assert one.width // step * step == one.width >= read.width(int(own.max()))
        frames = own[:, None] - np.arange(k) if mode == "frames" else own[:, None] - k + 1
        assert one.is_full == bool((frames // step == one.width // step).all())
    assert all(len(one.rows) % length_cut.ROW_STEP == 0 for one in passes[:-1])


@pytest.fixture
def small_passes(monkeypatch):
    """Cut as if passes cost nothing, and masks as much as on a GPU."""
    monkeypatch.setattr(length_cut, "MASK_COST", {"cpu": 1.15, "cuda": 1.15})
    monkeypatch.setattr(length_cut, "PASS_TOKENS", 0)
    monkeypatch.setattr(length_cut, "ROW_STEP", 4)


MODERN = {"architecture": "modernbert", "kmer_embedding": "composed", "layers": 2, "attention_window": 6}


def make_step(made, stage, ranks, model=None, **changes):
    size = {"dropout": 0.0, **(model or {})}
    config = made.config.model_copy(update={"model": made.config.model.model_copy(update=size)})
    config = config.model_copy(update={stage: config.stage(stage).model_copy(update=changes)})
    index = read_index(made.shards)
    torch.manual_seed(0)
    task = build_task(config, index, stage).train()
    slices = [RankSlice(rank, ranks) for rank in range(ranks)]
    streams = [ShardStream(made.shards, index, f"{stage}/train", 150, one) for one in slices]
    return task, [next(stream.epoch(0)).micro_batches[0] for stream in streams]


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("pretrain", {}), ("pretrain", {"masked": "insert"}), ("finetune", {}), ("finetune", {"tokens": "overlapping"}),
        ("pretrain", {"model": MODERN}), ("finetune", {"model": MODERN}),
    ],
)  # fmt: skip
def test_sums_and_gradients_do_not_depend_on_the_cut(made, small_passes, stage, changes):
    """Masks belong to the promoters. Only the order of summation differs: 1e-5 of the loss, 1e-4 of a gradient."""
    task, batches = make_step(made, stage, 2, **changes)
    results = []
    for is_cut in (False, True):
        task.zero_grad()
        all_sums = []
        for batch in batches:
            draws = task.draw(batch, make_generator(CPU, "a step"))
            passes = task.cut(batch, CPU) if is_cut else []
            assert not is_cut or len(passes) >= 2
            whole = batch_to_device(batch, task.choose_width(batch, CPU), draws, CPU)
            parts = [pass_to_device(batch, one, draws, CPU) for one in passes]
            sums = task(*(parts or [whole]))
            sums.loss.backward()
            prediction = np.empty(len(sums.prediction))
            prediction[join_rows(passes) if sums.prediction.numel() else []] = sums.prediction
            all_sums.append((sums.loss.item(), sums.count.item(), sums.correct.item(), prediction.tolist()))
        results.append((all_sums, {n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None}))
    (uncut, plain), (cut, ours) = results
    for one, other in zip(uncut, cut, strict=True):
        assert other[0] == pytest.approx(one[0], rel=1e-5)
        assert other[1] == one[1]
        assert abs(other[2] - one[2]) <= 1  # equal logits may be ordered differently
        assert other[3] == pytest.approx(one[3], rel=1e-5)
    for name, gradient in plain.items():
        scale = float(gradient.abs().max())
        assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=1e-5 * scale + 1e-7), name


class Masks(TorchFunctionMode):
    """Record of the attention masks that reach torch's attention."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            self.masks.append(kwargs["attn_mask"])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_full_passes_have_no_attention_mask_and_equal_outputs(made, small_passes, stage):
    task, (batch,) = make_step(made, stage, 1)
    draws = task.draw(batch, make_generator(CPU, "a step"))
    task.eval()
    is_full = set()
    for one in task.cut(batch, CPU):
        here = pass_to_device(batch, one, draws, CPU)
        with Masks() as seen, torch.no_grad():
            sums = task(here)
        assert len(seen.masks) == 1
        assert (seen.masks[0] is None) == one.is_full == here.is_full
        if one.is_full:
            with torch.no_grad():
                masked = task(type(here)(**{**vars(here), "is_full": False}))
            for name, value in sums._asdict().items():
                assert torch.allclose(value, getattr(masked, name), rtol=1e-6), name
        is_full.add(one.is_full)
    assert is_full == {True, False}


def test_zero_3_is_never_cut(made, small_passes):
    """Each pass would gather the weights, and ranks would differ in their number of passes."""
    task, (batch,) = make_step(made, "finetune", 1)
    task.may_cut = False
    (one,) = task.cut(batch, CPU)
    assert (one.rows, one.width, one.is_full) == (None, task.choose_width(batch, CPU), False)


def test_cut_is_the_cheapest_of_all_segments(small_passes, monkeypatch):
    """As found by trying each cut of both orders at multiples of ROW_STEP."""
    monkeypatch.setattr(length_cut, "PASS_TOKENS", 100)
    read, random = ModelInput("frames", 3, 1, GPU), np.random.default_rng(2)
    seen = set()
    for _ in range(30):
        lengths = random.choice([340, 379, 380, 390, 430], 24, p=random.dirichlet([0.5] * 5))
        kinds = np.array([read.kind(int(length)) for length in lengths])

        def cost(parts, kinds=kinds):
            described = [(len(rows), *length_cut._describe(kinds[rows])) for rows in parts]
            return sum(n * read.tokens(width) * (1 if full else 1.15) + 100 for n, width, full in described)

        orders = (np.lexsort((-kinds,)), np.lexsort((-kinds, kinds % 2 == 0)))
        cuts = [cut for n in range(4) for cut in itertools.combinations(range(4, 24, 4), n)]
        least = min(cost(np.split(order, cut)) for order in orders for cut in cuts)
        passes = cut_by_length(lengths, read.width(int(lengths.max())), read)
        assert cost([np.arange(24) if one.rows is None else one.rows for one in passes]) == pytest.approx(least)
        seen.add(len(passes))
    assert seen >= {1, 2, 3}
