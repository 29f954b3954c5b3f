import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.database import open_dataset
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.stream.shuffle import SHARDS_TOGETHER, WINDOW_RECORDS, make_epoch_order, partition
from pipeline.stream.stream import RankSlice, ShardStream

sizes = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), min_size=1, max_size=5)


def sequence_of(order):
    """List all (window, row) of an epoch in order."""
    return [(window, row) for window in range(order.windows) for row in order.window_rows(window).tolist()]


@settings(deadline=None, max_examples=100)
@given(sizes, st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_epoch_is_a_permutation(record_rows, seed, epoch, shuffle):
    order = make_epoch_order(record_rows, seed, epoch, shuffle)
    flat = [rows for shard in record_rows for rows in shard]
    assert sorted(order.records) == list(range(len(flat)))
    assert order.starts[-1] == sum(flat)
    for window in range(order.windows):
        expected = sum(flat[record] for record in order.window_records(window))
        assert sorted(order.window_rows(window)) == list(range(expected))
        assert order.window_of(int(order.starts[window])) == window
        assert order.window_of(int(order.starts[window + 1]) - 1) == window


def test_order_by_hand():
    plain = make_epoch_order([[2, 3], [4]], seed=1, epoch=0, shuffle=False)
    assert plain.records.tolist() == [0, 1, 2]
    assert plain.window_rows(0).tolist() == list(range(9))
    result = make_epoch_order([[1] * 5] * (2 * SHARDS_TOGETHER), seed=1, epoch=0).records // 5
    first, second = set(result[: 5 * SHARDS_TOGETHER].tolist()), set(result[5 * SHARDS_TOGETHER :].tolist())
    assert len(first) == len(second) == SHARDS_TOGETHER  # whole shards, so many at a time
    assert len(set(result[:WINDOW_RECORDS].tolist())) > SHARDS_TOGETHER / 2  # and a window is of most of them
    assert sequence_of(make_epoch_order([[9] * 40], 1, 0)) == sequence_of(make_epoch_order([[9] * 40], 1, 0))
    assert sequence_of(make_epoch_order([[9] * 40], 1, 0)) != sequence_of(make_epoch_order([[9] * 40], 1, 1))
    assert len(make_epoch_order([[9] * 40], 1, 0).window_records(0)) == WINDOW_RECORDS


def test_seed_and_epoch_change_records_and_rows():
    """Records and rows are checked separately, because one shuffle could hide a missing other."""
    places = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    orders = [make_epoch_order([[9] * 10] * 4, *place) for place in places]
    assert len({tuple(order.records) for order in orders}) == len(places)
    assert len({tuple(order.window_rows(0)) for order in orders}) == len(places)
    assert len({tuple(order.records // 10) for order in orders}) == len(places)  # shards, too
    first, second = (orders[0].window_rows(window).tolist() for window in (0, 1))
    assert first != second


def test_order_of_an_epoch_is_stable():
    """A run of an older version resumes in the same order."""
    order = make_epoch_order([[2, 3], [4], [1, 2]], seed=7, epoch=3)
    assert order.records.tolist() == [4, 0, 3, 2, 1]
    assert order.window_rows(0).tolist() == [2, 9, 10, 4, 0, 5, 6, 3, 7, 8, 11, 1]


@given(st.integers(0, 1000), st.integers(1, 40))
def test_partition_is_even(rows, parts):
    counts = np.diff(partition(rows, parts))
    assert counts.sum() == rows
    assert counts.max() - counts.min() <= 1


def stream(made, batch, rank=0, ranks=1, micro=1, seed=0, shuffle=True, split="finetune/train"):
    return ShardStream(made.shards, read_index(made.shards), split, batch, RankSlice(rank, ranks, micro), seed, shuffle)


def global_batches(made, batch, ranks, micro, epoch=0, consumed=0, **options):
    """Join the ids of each global batch from the micro-batches of all ranks."""
    streams = [stream(made, batch, rank, ranks, micro, **options) for rank in range(ranks)]
    steps = [list(s.epoch(epoch, consumed)) for s in streams]
    assert len({len(s) for s in steps}) == 1
    assert all(len(step.micro_batches) == micro for rank in steps for step in rank)
    return [
        np.concatenate([b.id[b.weight > 0] for step in together for b in step.micro_batches])
        for together in zip(*steps, strict=True)
    ]


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 16), st.integers(1, 5), st.integers(1, 400), st.integers(0, 2), st.data())
def test_global_batches_do_not_depend_on_ranks_and_resume(made, ranks, micro, batch, seed, data):
    alone = global_batches(made, batch, 1, 1, seed=seed)
    everyone = np.concatenate(alone)
    assert sorted(everyone) == list(range(300, 1500))  # the first 300 are test and validation
    assert [len(ids) for ids in alone[:-1]] == [batch] * (len(alone) - 1)
    assert len(alone) == len(stream(made, batch))
    split = global_batches(made, batch, ranks, micro, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(alone, split, strict=True))
    done = data.draw(st.integers(0, len(alone)))
    rest = global_batches(made, batch, ranks, micro, seed=seed, consumed=min(done * batch, 1200))
    assert all(np.array_equal(a, b) for a, b in zip(alone[done:], rest, strict=True))


def test_epochs_and_seeds_differ_and_repeat(made):
    def order(**place):
        return np.concatenate(global_batches(made, 100, 1, 1, **place)).tolist()

    assert order() == order()
    assert order() != order(epoch=1)
    assert order() != order(seed=1)
    assert order(shuffle=False) == order(shuffle=False, epoch=3) == list(range(300, 1500))


def test_batches_equal_the_dataset(made):
    with open_dataset(made.config.dataset.path) as connection:
        rows = connection.execute("select id, kmer_ids(extended(sequence, 5), 3), expression from promoters").fetchall()
    expected = {number: (ids, np.float32(label)) for number, ids, label in rows}
    for step in stream(made, 128, micro=2).epoch(0):
        widths = {batch.tokens.shape[1] for batch in step.micro_batches}
        assert len(widths) == 1
        assert widths.pop() % 8 == 0
        for batch in step.micro_batches:
            assert batch.global_rows == len(batch.global_lengths)
            for i, number in enumerate(batch.id):
                ids, label = expected[int(number)]
                assert batch.tokens[i, : batch.lengths[i]].tolist() == ids
                assert not batch.tokens[i, batch.lengths[i] :].any()
                assert batch.expression[i] == label
                assert batch.global_lengths[batch.first_row + i] == batch.lengths[i]


def test_empty_micro_batches_get_rows_of_weight_zero(made):
    batches = [next(stream(made, 3, rank, 4, 2).epoch(0)).micro_batches for rank in range(4)]
    weights = [b.weight.tolist() for rank in batches for b in rank]
    assert sum(sum(w) for w in weights) == 3
    assert all(len(w) == 1 for w in weights)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_corrupt_shard_is_named(made, tmp_path, damage):
    import shutil

    shutil.copytree(made.shards, tmp_path / "k3")
    index = read_index(tmp_path / "k3")
    shard = index.splits["finetune/valid"][0]
    path = tmp_path / "k3" / shard.file
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    {"flip": lambda: path.write_bytes(data), "truncate": lambda: path.write_bytes(data[:300]), "remove": path.unlink}[
        damage
    ]()
    with pytest.raises(UserError, match=r"valid-000000\.tar"):
        list(ShardStream(tmp_path / "k3", index, "finetune/valid", 32, RankSlice()).epoch(0))


def test_early_stop_leaves_no_thread(made):
    before = threading.active_count()
    steps = stream(made, 8).epoch(0)
    next(steps)
    steps.close()
    assert threading.active_count() == before


def test_missing_split(made):
    with pytest.raises(UserError, match="no split"):
        stream(made, 8, split="pretrain/test")


def test_shards_are_read_from_any_working_directory(made, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert next(stream(made, 8).epoch(0)).consumed == 8
    assert Path.cwd() == tmp_path
