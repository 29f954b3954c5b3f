"""Properties of the stream over shards of any shape: each promoter once, batches independent of ranks, resume."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.stream.stream import RankSlice, ShardStream
from pipeline.tokens.kmers import decode_ids, encode_text
from pipeline.tokens.reverse_complement import draw_strands
from tests.pipeline.stream.test_reader import COMPLEMENT
from tests.pipeline.stream.tiny_shards import SPLIT, ids_of, write_tiny

shapes = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def folders():
    """Cache shards by shape, so that the examples of hypothesis write each once."""
    with tempfile.TemporaryDirectory() as folder:
        written = {}

        def shards(shape, longest, k, zstd=False):
            key = (str(shape), longest, k, zstd)
            if key not in written:
                place = Path(folder) / str(len(written))
                written[key] = place, write_tiny(place, shape, longest, k, zstd)
            return written[key]

        yield shards


def tensors(batch):
    return [
        torch.from_numpy(np.ascontiguousarray(a)) for a in (batch.tokens, batch.lengths, batch.expression, batch.id)
    ]


def joined(steps):
    """Join the tensors of a global batch from the steps of all ranks, without rows of weight 0."""
    parts = [batch for step in steps for batch in step.micro_batches]
    return [
        torch.cat([tensor[torch.from_numpy(part.weight) > 0] for part, tensor in zip(parts, column, strict=True)])
        for column in zip(*map(tensors, parts), strict=True)
    ]


def equal(ones, others):
    return len(ones) == len(others) and all(
        len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in zip(ones, others, strict=True)
    )


@settings(deadline=None, max_examples=60)
@given(
    shapes,
    st.integers(0, 40),
    st.sampled_from([1, 3, 4, 7]),
    st.integers(1, 16),
    st.integers(1, 3),
    st.integers(1, 60),
    st.integers(0, 2**32),
    st.integers(0, 5),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_each_promoter_once_for_any_ranks_and_resume(
    folders, shape, longest, k, ranks, micro, batch, seed, epoch, shuffle, reverse, data
):
    with pytest.MonkeyPatch.context() as patch:  # blocks that end anywhere in the windows
        patch.setattr("pipeline.stream.stream.BLOCK_PROMOTERS", data.draw(st.integers(1, 300)))
        check(folders, shape, longest, k, ranks, micro, batch, seed, epoch, shuffle, reverse, data)


def check(folders, shape, longest, k, ranks, micro, batch, seed, epoch, shuffle, reverse, data):
    folder, index = folders(shape, longest, k, data.draw(st.booleans()))
    rows = sum(map(sum, shape))

    def stream(rank=0, ranks=1, micro=1):
        return ShardStream(folder, index, SPLIT, batch, RankSlice(rank, ranks, micro), seed, shuffle, reverse)

    steps = list(stream().epoch(epoch))
    numbers = [(step.epoch, step.number, step.consumed) for step in steps]
    assert numbers == [(epoch, i, min((i + 1) * batch, rows)) for i in range(len(steps))]
    alone = [joined([step]) for step in steps]
    assert sorted(int(i) for batch in alone for i in batch[3]) == [10 * i for i in range(rows)]
    assert len(alone) == len(stream()) == -(-rows // batch)
    if not reverse:
        for tokens, lengths, labels, ids in alone:
            for row, length, label, number in zip(tokens, lengths, labels, ids, strict=True):
                assert row[:length].tolist() == ids_of(int(number) // 10, longest, k).tolist()
                assert not row[length:].any()
                assert label == number / 20

    # Killed after any step, and gone on with on another world, from the state as text.
    done = data.draw(st.integers(0, len(alone)))
    state = stream().state(epoch, min(done * batch, rows)).to_json()
    world = [stream(rank, ranks, micro) for rank in range(ranks)]
    steps = [list(one.resume(type(one.state()).from_json(state))) for one in world]
    assert {len(mine) for mine in steps} == {len(alone) - done}
    assert all([step.number for step in mine] == list(range(done, len(alone))) for mine in steps)
    assert all(len(step.micro_batches) == micro for mine in steps for step in mine)
    assert equal(alone[done:], [joined(together) for together in zip(*steps, strict=True)])
    for together in zip(*steps, strict=True):
        assert {(step.epoch, step.number, step.consumed) for step in together} == {numbers[together[0].number]}
        assert len({part.tokens.shape[1] for step in together for part in step.micro_batches}) == 1


def test_strand_belongs_to_its_promoter_in_any_order(folders, made):
    """Half of the promoters, drawn per epoch by position: equal with and without shuffle."""
    from pipeline.shards.index import read_index

    index = read_index(made.shards)

    def bases(reverse, epoch, shuffle=True, batch=64):
        steps = ShardStream(made.shards, index, "finetune/train", batch, RankSlice(), 5, shuffle, reverse).epoch(epoch)
        parts = [part for step in steps for part in step.micro_batches]
        return {
            int(number): decode_ids(row[:length], index.k)
            for part in parts
            for number, row, length in zip(part.id, part.tokens, part.lengths, strict=True)
        }

    plain = bases(False, 0)
    turned = []
    for epoch in (0, 1):
        result = bases(True, epoch)
        assert result == bases(True, epoch, shuffle=False, batch=100)
        for number, text in plain.items():
            assert result[number] in (text, text.translate(COMPLEMENT)[::-1])
            assert encode_text(result[number], index.k).dtype == np.uint8
        turned.append({number for number, text in plain.items() if result[number] != text})
        positions = np.flatnonzero(draw_strands(5, epoch, np.arange(1200)))
        assert turned[-1] == {300 + int(position) for position in positions}  # in the split, whose first id is 300
    assert all(500 < len(numbers) < 700 for numbers in turned)  # of 1,200
    assert turned[0] != turned[1]


def test_state_of_other_shards_is_rejected(folders):
    folder, index = folders([[3, 4]], 5, 3)
    stream = ShardStream(folder, index, SPLIT, 2, RankSlice())
    other = ShardStream(folder, type(index)(**{**index.__dict__, "key": "another"}), SPLIT, 2, RankSlice())
    with pytest.raises(UserError, match=f"shard_key {index.key}, but this stream has another"):
        other.resume(stream.state(0, 2))
    assert [step.consumed for step in stream.resume(stream.state(0, 2))] == [4, 6, 7]


def test_corruption_between_two_epochs_is_an_error(tmp_path):
    index = write_tiny(tmp_path, [[20, 20]])
    stream = ShardStream(tmp_path, index, SPLIT, 8, RankSlice())
    assert len(list(stream.epoch(0))) == 5
    entry = index.splits[SPLIT][0].records[1]
    path = tmp_path / index.splits[SPLIT][0].file
    data = bytearray(path.read_bytes())
    data[entry.offset + 600] ^= 64
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train-000000\.tar: record 1, .*: expected CRC-32 .*, got"):
        list(stream.epoch(1))
    path.write_bytes(data[: entry.offset + 100])
    with pytest.raises(UserError, match=r"record 1, .*expected .* bytes, got 100"):
        list(stream.epoch(1))
