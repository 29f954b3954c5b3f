import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.bert.frames import kmers_in_frames
from model.bert.masking import IGNORED, draw, mask
from model.bert.rng import generator
from pipeline.tokens.kmers import CLS, MASK, PAD, SEP

CPU = torch.device("cpu")


def batch(rows=20_000, kmers=40, columns=50):
    input_ids = torch.full((rows, columns), PAD)
    input_ids[:, 0] = CLS
    input_ids[:, 1 : kmers + 1] = torch.randint(5, 130, (rows, kmers), generator=generator(CPU, "ids"))
    input_ids[:, kmers + 1] = SEP
    return input_ids, torch.full((rows,), kmers)


@given(length=st.integers(0, 60), k=st.integers(1, 8), before=st.integers(0, 20), behind=st.integers(0, 20))
def test_kmers_between_flanks_are_counted(length, k, before, behind):
    found = kmers_in_frames(torch.tensor([length]), k, (before, behind))[0]
    for frame in range(k):
        begins = range(frame, length - k + 1, k)
        assert found[frame] == sum(begin >= before and begin + k <= length - behind for begin in begins)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_shares_of_80_10_10(share):
    input_ids, kmers = batch()
    read, labels = mask(input_ids, kmers, draw(20_000, 50, 3, generator(CPU, 1)), share)
    chosen = labels != IGNORED
    assert chosen.sum() / (20_000 * 40) == pytest.approx(share, abs=0.01)
    assert torch.equal(labels[chosen], input_ids[chosen])
    assert torch.equal(read[~chosen], input_ids[~chosen])
    assert (read[chosen] == MASK).float().mean() == pytest.approx(0.8, abs=0.01)
    kept = (read[chosen] == input_ids[chosen]).float().mean()
    assert kept == pytest.approx(0.1 + 0.1 / 125, abs=0.01)
    swapped = read[chosen & (read != MASK) & (read != input_ids)]
    assert swapped.min() >= 5
    assert swapped.unique().numel() == 125


def test_specials_and_padding_are_never_to_be_predicted():
    input_ids, kmers = batch()
    read, labels = mask(input_ids, kmers, draw(20_000, 50, 3, generator(CPU, 2)), 0.9)
    special = input_ids < 5
    assert (labels[special] == IGNORED).all()
    assert torch.equal(read[special], input_ids[special])


def test_the_same_mask_however_the_global_batch_is_split():
    input_ids, kmers = batch(100)
    draws = draw(100, 50, 3, generator(CPU, 3))
    read, labels = mask(input_ids, kmers, draws, 0.15)
    for first, rows in ((0, 40), (40, 1), (41, 59)):
        piece = slice(first, first + rows)
        part_read, part_labels = mask(input_ids[piece], kmers[piece], draws.part(first, rows), 0.15)
        assert torch.equal(part_read, read[piece])
        assert torch.equal(part_labels, labels[piece])


def test_draws_follow_their_place_in_the_run():
    def select(*place):
        return draw(10, 50, 3, generator(CPU, *place)).select

    assert torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 1, 2))
    assert not torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 1, 3))
    assert not torch.equal(select(0, "pretrain", 1, 2), select(0, "pretrain", 12, ""))
