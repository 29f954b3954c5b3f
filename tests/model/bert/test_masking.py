import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.bert.frames import count_kmers_in_frames
from model.bert.masking import IGNORED, draw, mask_kmers
from model.bert.rng import make_generator
from pipeline.tokens.kmers import CLS, MASK, PAD, SEP

CPU = torch.device("cpu")


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
    read, labels = mask_kmers(input_ids, kmers, draw(20_000, 50, 3, make_generator(CPU, 1)), share)
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
    read, labels = mask_kmers(input_ids, kmers, draw(20_000, 50, 3, make_generator(CPU, 2)), 0.9)
    special = input_ids < 5
    assert (labels[special] == IGNORED).all()
    assert torch.equal(read[special], input_ids[special])


def test_masks_do_not_depend_on_the_split_of_the_global_batch():
    input_ids, kmers = batch(100)
    draws = draw(100, 50, 3, make_generator(CPU, 3))
    read, labels = mask_kmers(input_ids, kmers, draws, 0.15)
    for first, rows in ((0, 40), (40, 1), (41, 59)):
        piece = slice(first, first + rows)
        part_read, part_labels = mask_kmers(input_ids[piece], kmers[piece], draws.slice_rows(first, rows), 0.15)
        assert torch.equal(part_read, read[piece])
        assert torch.equal(part_labels, labels[piece])


def test_draws_are_a_function_of_the_position_in_the_run():
    def select(*position):
        return draw(10, 50, 3, make_generator(CPU, *position)).select

    assert torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 1, 2))
    assert not torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 1, 3))
    assert not torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 12, ""))
