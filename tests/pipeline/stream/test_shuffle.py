"""Order of an epoch: a permutation, cut into equal lanes, that never changes."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stream.shuffle import LANES, SHARDS_TOGETHER, WINDOW_RECORDS, EpochOrder, count_lanes

sizes = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), min_size=1, max_size=5)


def make_order(record_rows, seed=1, epoch=0, batch=1, lanes=1, shuffle=True):
    return EpochOrder([sum(rows) for rows in record_rows], record_rows.__getitem__, seed, epoch, batch, lanes, shuffle)


def rows_of(lane):
    """List (shard, row of the shard) of a lane in order."""
    rows = []
    for window in range(len(lane.windows) - 1):
        pieces = lane.window_pieces(window)
        members = np.concatenate([
            np.stack([np.full(end - first, shard), np.arange(row, row + end - first)], 1)
            for shard, _, first, end, row in pieces.tolist()
        ])  # fmt: skip
        rows += map(tuple, members[lane.window_rows(window)].tolist())
    return rows


@settings(deadline=None, max_examples=100)
@given(sizes, st.integers(0, 3), st.integers(0, 3), st.booleans(), st.sampled_from(LANES[:9]), st.integers(0, 9))
def test_lanes_are_a_permutation_and_equally_long(record_rows, seed, epoch, shuffle, lanes, more):
    batch, total = lanes + more, sum(map(sum, record_rows))
    order = make_order(record_rows, seed, epoch, batch, lanes, shuffle)
    everything = [(shard, row) for shard, rows in enumerate(record_rows) for row in range(sum(rows))]
    parts = [order.lane(number) for number in range(lanes)]
    assert sum(lane.quota for lane in parts) == batch
    steps = total // batch
    assert [len(lane) for lane in parts[:-1]] == [steps * lane.quota for lane in parts[:-1]]
    assert len(parts[-1]) == steps * parts[-1].quota + total % batch
    joined = [row for lane in parts for row in rows_of(lane)]
    assert sorted(joined) == everything
    if not shuffle:
        assert joined == everything
    for lane in parts:
        assert (np.diff(lane.starts) > 0).all()
        for window in range(len(lane.windows) - 1):
            assert lane.find_window(int(lane.starts[window])) == window
            assert lane.find_window(int(lane.starts[window + 1]) - 1) == window
        for shard, record, first, end, row in lane.pieces.tolist():
            assert 0 <= first < end <= record_rows[shard][record]
            assert row == sum(record_rows[shard][:record]) + first
        assert rows_of(lane) == rows_of(order.lane(lane.number))


def test_shards_are_permuted_together_in_groups():
    lane = make_order([[1] * 5] * (2 * SHARDS_TOGETHER)).lane(0)
    shards = lane.pieces[:, 0]
    first, second = set(shards[: 5 * SHARDS_TOGETHER].tolist()), set(shards[5 * SHARDS_TOGETHER :].tolist())
    assert len(first) == len(second) == SHARDS_TOGETHER
    assert not first & second
    assert len(set(shards[:WINDOW_RECORDS].tolist())) > SHARDS_TOGETHER / 2  # a window is of most of them
    assert len(lane.window_pieces(0)) == WINDOW_RECORDS


def test_lanes_change_windows_at_different_steps():
    order = make_order([[64] * 40] * 16, batch=32, lanes=16)
    changes = [{int(start) // lane.quota for start in lane.starts[1:-1]} for lane in map(order.lane, range(16))]
    assert all(len(mine) > 30 for mine in changes)
    assert len({min(mine) for mine in changes}) > 12


def test_seed_and_epoch_change_shards_records_and_rows():
    """They are checked separately, because one shuffle could hide a missing other."""
    places = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    for lanes in (1, 4):
        made = [make_order([[9] * 10] * 8, *place, batch=8, lanes=lanes).lane(lanes - 1) for place in places]
        assert len({tuple(map(tuple, lane.pieces[:, 1:2].tolist())) for lane in made}) == len(places)
        assert len({tuple(lane.pieces[:, 0].tolist()) for lane in made}) == len(places)
        windows = [tuple(lane.window_rows(1).tolist()) for lane in made]
        assert len(set(windows)) == len(places)
    order = make_order([[9] * 40] * 8, batch=16, lanes=16)
    same_size = [tuple(order.lane(number).window_rows(2).tolist()) for number in range(16)]
    assert len(set(same_size)) == 16


def test_order_of_a_single_lane_is_that_of_earlier_versions():
    """A run of an older version resumes in the same order."""
    lane = make_order([[2, 3], [4], [1, 2]], seed=7, epoch=3).lane(0)
    numbers = {(0, 0): 0, (0, 1): 1, (1, 0): 2, (2, 0): 3, (2, 1): 4}
    assert [numbers[shard, record] for shard, record, *_ in lane.pieces.tolist()] == [4, 0, 3, 2, 1]
    assert lane.window_rows(0).tolist() == [2, 9, 10, 4, 0, 5, 6, 3, 7, 8, 11, 1]


def test_order_of_lanes_is_stable():
    shards = [[40] * (3 + number % 4) + [17] for number in range(30)]
    order = make_order(shards, seed=5, epoch=2, batch=50, lanes=16)
    sha256 = hashlib.sha256()
    for number in range(order.lanes):
        sha256.update(np.array(rows_of(order.lane(number)), np.int64).tobytes())
    assert sha256.hexdigest()[:16] == "ad09321c836d2370"


@pytest.mark.parametrize(
    ("rows", "batch", "shuffle", "lanes"),
    [
        (131_071, 4096, True, 1),
        (131_072, 4096, True, 2),
        (6_510_079, 4096, True, 96),
        (6_510_079, 32, True, 32),
        (1_000_000_000, 4096, True, 768),
        (10**12, 10, True, 8),
        (131_072, 1024, False, 8),
        (200_000, 300_000, True, 1),
        (5, 1, True, 1),
        (200_000, 1, True, 1),
    ],
)
def test_number_of_lanes(rows, batch, shuffle, lanes):
    assert count_lanes(rows, batch, shuffle) == lanes
