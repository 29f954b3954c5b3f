import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.database import open_dataset
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.stream.shuffle import partition
from pipeline.stream.stream import RankSlice, ShardStream


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
