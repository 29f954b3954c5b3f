"""Checkpoints within an epoch whose order has changed."""

import pytest

from model.training.checkpointing.checkpoints import StageState


@pytest.mark.parametrize(
    ("saved", "consumed", "lanes", "restarts"),
    [
        (1, 500, 1, False),
        (1, 500, 4, True),
        (4, 500, 4, False),
        (4, 0, 1, False),
        (1, 1000, 4, False),
        (8, 500, 4, True),
    ],
)
def test_epoch_of_another_order_starts_again(saved, consumed, lanes, restarts):
    state = StageState(step=7, epoch=2, consumed=consumed, lanes=saved)
    assert state.adopt_order(lanes, 1000) == restarts
    assert (state.step, state.epoch, state.consumed, state.lanes) == (7, 2, 0 if restarts else consumed, lanes)


def test_checkpoint_without_lanes_has_the_order_of_a_single_lane():
    old = {"step": 3, "epoch": 1, "consumed": 96}
    assert not StageState(**old).adopt_order(1, 1000)
    assert StageState(**old).adopt_order(2, 1000)
