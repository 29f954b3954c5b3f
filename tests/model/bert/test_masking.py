import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.bert.frames import count_kmers_in_frames
from model.bert.masking import IGNORED, draw, mask_kmers
from model.bert.rng import make_generator
from pipeline.tokens.kmers import CLS, MASK, PAD, SEP

CPU = torch.device("cpu")


def draw_all(rows, columns, k, generator):
    return draw(rows, columns, k, generator).slice_rows(0, rows)


def batch(rows=20_000, kmers=40, columns=50):
    input_ids = torch.full((rows, columns), PAD)
    input_ids[:, 0] = CLS
    input_ids[:, 1 : kmers + 1] = torch.randint(5, 130, (rows, kmers), generator=make_generator(CPU, "ids"))
    input_ids[:, kmers + 1] = SEP
    return input_ids, torch.full((rows,), kmers)


@given(length=st.integers(0, 60), k=st.integers(1, 8), upstream=st.integers(0, 20), downstream=st.integers(0, 20))
def test_kmers_between_flanks_are_counted(length, k, upstream, downstream):
    counts = count_kmers_in_frames(torch.tensor([length]), k, (upstream, downstream))[0]
    for frame in range(k):
        begins = range(frame, length - k + 1, k)
        assert counts[frame] == sum(begin >= upstream and begin + k <= length - downstream for begin in begins)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_80_10_10_percent_are_masked_replaced_and_unchanged(share):
    input_ids, kmers = batch()
    read, labels = mask_kmers(input_ids, kmers, draw_all(20_000, 50, 3, make_generator(CPU, 1)), share)
    is_target = labels != IGNORED
    assert is_target.sum() / (20_000 * 40) == pytest.approx(share, abs=0.01)
    assert torch.equal(labels[is_target], input_ids[is_target])
    assert torch.equal(read[~is_target], input_ids[~is_target])
    assert (read[is_target] == MASK).float().mean() == pytest.approx(0.8, abs=0.01)
    kept = (read[is_target] == input_ids[is_target]).float().mean()
    assert kept == pytest.approx(0.1 + 0.1 / 125, abs=0.01)
    swapped = read[is_target & (read != MASK) & (read != input_ids)]
    assert swapped.min() >= 5
    assert swapped.unique().numel() == 125


def test_special_tokens_and_padding_are_never_masked():
    input_ids, kmers = batch()
    read, labels = mask_kmers(input_ids, kmers, draw_all(20_000, 50, 3, make_generator(CPU, 2)), 0.9)
    special = input_ids < 5
    assert (labels[special] == IGNORED).all()
    assert torch.equal(read[special], input_ids[special])


def test_masks_do_not_depend_on_the_split_of_the_global_batch():
    input_ids, kmers = batch(100)
    draws = draw(100, 50, 3, make_generator(CPU, 3))
    read, labels = mask_kmers(input_ids, kmers, draws.slice_rows(0, 100), 0.15)
    for first, rows in ((0, 40), (40, 1), (41, 59)):
        piece = slice(first, first + rows)
        part_read, part_labels = mask_kmers(input_ids[piece], kmers[piece], draws.slice_rows(first, rows), 0.15)
        assert torch.equal(part_read, read[piece])
        assert torch.equal(part_labels, labels[piece])


def test_draws_are_a_function_of_the_position_in_the_run():
    def select(*position):
        return draw_all(10, 50, 3, make_generator(CPU, *position)).select

    assert torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 1, 2))
    assert not torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 1, 3))
    assert not torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 12, ""))


def test_draws_per_token_are_uniform_and_independent():
    draws = draw_all(4000, 100, 4, make_generator(CPU, "uniform"))
    bins = torch.histc(draws.select, 64, 0, 1) / draws.select.numel()
    assert draws.select.min() >= 0
    assert draws.select.max() < 1
    assert (bins - 1 / 64).abs().max() < 0.0012  # 6 standard deviations
    counts = torch.bincount(draws.swap.flatten() - 5, minlength=5**4)
    assert len(counts) == 5**4
    assert (counts - 640).abs().max() < 6 * 640**0.5
    other = draw_all(4000, 100, 4, make_generator(CPU, "other"))
    pairs = torch.stack([
        draws.select[:, :-1].flatten(), draws.select[:, 1:].flatten(), draws.select.roll(1, 0)[:, 1:].flatten(),
        draws.swap[:, 1:].flatten().float(), other.select[:, 1:].flatten(),
    ])  # fmt: skip
    correlations = torch.corrcoef(pairs) - torch.eye(len(pairs))
    assert correlations.abs().max() < 6 / 396_000**0.5


def test_draws_of_a_token_do_not_depend_on_the_width():
    wide, narrow = (draw_all(20, columns, 3, make_generator(CPU, 1)) for columns in (90, 30))
    assert torch.equal(wide.select[:, :30], narrow.select)
    assert torch.equal(wide.swap[:, :30], narrow.swap)
    part = draw(20, 90, 3, make_generator(CPU, 1)).select_rows(torch.tensor([7, 3]), 30)
    assert torch.equal(part.select, narrow.select[[7, 3]])
    assert torch.equal(part.frame, wide.frame[[7, 3]])
