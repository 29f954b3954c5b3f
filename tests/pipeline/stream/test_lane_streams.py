"""Streams with several lanes: ranks that read only their own lanes make the batches of a single rank."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.shards.index import read_index, serialize_files
from pipeline.stream.batching import RankSlice, assign_rows
from pipeline.stream.lanes import slice_lanes
from pipeline.stream.shuffle import LANES, WINDOW_RECORDS, EpochOrder, count_lanes
from pipeline.stream.stream import ShardStream, StreamState
from tests.pipeline.stream.test_stream_properties import equal, joined
from tests.pipeline.stream.tiny_shards import SPLIT, ids_of, labels_of, write_tiny
from tests.pipeline.stream.worlds import run_world

SHAPES = [
    [[9, 9, 9], [9, 9, 9, 4], [9, 9], [9, 9, 2]],
    [[1] * 20, [30], [2, 25, 2]],
    [[5] * 9] * 6,
]


@pytest.fixture(scope="module")
def folders():
    """Write each shape once, uncompressed and compressed."""
    with tempfile.TemporaryDirectory() as folder:
        yield [
            [
                (place := Path(folder) / f"{number}-{zstd}", write_tiny(place, shape, 14, 3, zstd))
                for zstd in (False, True)
            ]
            for number, shape in enumerate(SHAPES)
        ]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, len(SHAPES) - 1),
    st.booleans(),
    st.sampled_from([lanes for lanes in LANES if 1 < lanes <= 12]),
    st.integers(0, 15),
    st.integers(1, 3),
    st.integers(0, 2**32),
    st.integers(0, 5),
    st.booleans(),
    st.booleans(),
    st.integers(1, 60),
    st.data(),
)
def test_any_ranks_make_the_batches_of_one_and_resume_at_every_step(
    folders, shape, zstd, lanes, more, micro, seed, epoch, shuffle, reverse, block, data
):
    folder, index = folders[shape][zstd]
    batch, rows = lanes + more, index.rows(SPLIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stream.stream.count_lanes", lambda *_: lanes)
        patch.setattr("pipeline.stream.stream.BLOCK_PROMOTERS", block)

        def make(_rank, rank_slice):
            return ShardStream(folder, index, SPLIT, batch, rank_slice, seed, shuffle, reverse)

        alone = [joined([step]) for step in make(0, RankSlice()).epoch(epoch)]
        assert sorted(int(i) for part in alone for i in part[3]) == [10 * i for i in range(rows)]
        assert [len(part[3]) for part in alone] == [batch] * (rows // batch) + [rows % batch] * (rows % batch > 0)
        if not reverse:
            for row, length, _, number in zip(*alone[0], strict=True):
                assert row[:length].tolist() == ids_of(int(number) // 10, 14, 3).tolist()
        ranks = data.draw(st.integers(1, lanes + 2))
        done = data.draw(st.integers(0, len(alone)))
        streams, outcomes = run_world(make, ranks, micro, epoch, min(done * batch, rows))
        together = list(zip(*outcomes, strict=True))
        assert equal(alone[done:], [joined(steps) for steps in together])
        for number, steps in enumerate(together, done):
            assert {(step.number, step.consumed) for step in steps} == {(number, min((number + 1) * batch, rows))}
            parts = [part for step in steps for part in step.micro_batches]
            assert len({part.tokens.shape[1] for part in parts}) == 1
            lengths = alone[number][1].tolist()
            assert all(part.global_lengths.tolist() == lengths for part in parts)
            assert all(part.global_rows == part.global_values == len(lengths) for part in parts)
        if ranks > 1 and not done:  # and without an exchange, each rank reads everything
            steps = [list(make(rank, RankSlice(rank, ranks, micro)).epoch(epoch)) for rank in range(ranks)]
            assert equal(alone, [joined(steps) for steps in zip(*steps, strict=True)])
            check_bytes(streams, index, lanes, batch)


def check_bytes(streams, index, lanes, batch):
    """Check the records that each rank has read against the bound."""
    shards = index.splits[SPLIT]
    total, largest = sum(s.bytes for s in shards), max(r.bytes for s in shards for r in s.records)
    for stream in streams:
        checked = stream._reader._checked.items()
        read = sum(
            shards[shard].records[number].bytes
            for shard, (_, places) in checked
            for number in np.flatnonzero(places[:, 0] != -1)
        )
        # Whole records are read at both ends of a lane, and whole windows for the short last batch.
        ends = (2 * lanes + batch + WINDOW_RECORDS) * largest
        assert read <= (1 / len(streams) + 2 / lanes) * total + ends


def share_of_bytes(rows, batch, ranks, rank, record=4096, per_shard=41, epoch=0):
    """Compute the share of the rows of a split that a rank reads in an epoch, and the number of its lanes."""
    records = [record] * (rows // record) + [rows % record] * (rows % record > 0)
    shards = [records[at : at + per_shard] for at in range(0, len(records), per_shard)]
    lanes = count_lanes(rows, batch)
    order = EpochOrder(list(map(sum, shards)), shards.__getitem__, 1, epoch, batch, lanes)
    rest = rows % batch
    tail = assign_rows(RankSlice(rank, ranks), rest).range if rest else (0, 0)
    slices = slice_lanes(order, 0, assign_rows(RankSlice(rank, ranks), batch).range, tail, reads_all=False)
    read = [part.lane.window_pieces(w) for part in slices for w in part.windows() if len(part.select(w))]
    pieces = {(shard, number) for window in read for shard, number, *_ in window.tolist()}
    return sum(shards[shard][number] for shard, number in pieces) / rows, lanes


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 7, 8, 11, 16, 96])
def test_share_of_the_bytes_per_rank(ranks):
    for rank in {0, ranks // 2, ranks - 1}:
        share, lanes = share_of_bytes(6_700_000, 1536, ranks, rank)
        assert lanes == 96
        assert share <= 1 / ranks + 2 / lanes
        assert share >= 1 / ranks


def test_corrupt_record_of_one_rank_ends_all_ranks(folders, tmp_path, monkeypatch):
    folder, index = folders[2][False]
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setattr("pipeline.stream.stream.count_lanes", lambda *_: 6)
    monkeypatch.setattr("pipeline.stream.stream.BLOCK_PROMOTERS", 20)
    for shard in index.splits[SPLIT]:
        data = bytearray((tmp_path / "copy" / shard.file).read_bytes())
        for record in shard.records[3:]:
            data[record.offset + 700] ^= 1
        (tmp_path / "copy" / shard.file).write_bytes(data)

    def make(rank, rank_slice):
        return ShardStream(tmp_path / "copy" if rank == 1 else folder, index, SPLIT, 12, rank_slice, seed=4)

    _, outcomes = run_world(make, 3, 2)
    assert len({steps for steps, _ in outcomes}) == 1
    assert all("CRC-32" in str(error) for _, error in outcomes)
    assert all(str(tmp_path / "copy") in str(error) for _, error in outcomes)


@pytest.mark.parametrize("zstd", [False, True])
def test_several_labels_in_lanes(tmp_path, monkeypatch, zstd):
    """Each rank has the labels of its own promoters, and the number of present labels in the global batch."""
    index = write_tiny(tmp_path, SHAPES[2], 14, 3, zstd, labels=("a", "b"))
    monkeypatch.setattr("pipeline.stream.stream.count_lanes", lambda *_: 4)
    for name, content in serialize_files(index).items():
        (tmp_path / name).write_bytes(content)

    def make(_rank, rank_slice):
        return ShardStream(tmp_path, read_index(tmp_path), SPLIT, 25, rank_slice, seed=2)

    alone = [step.micro_batches[0] for step in make(0, RankSlice()).epoch(1)]
    for ranks, micro in ((2, 1), (3, 2), (7, 4)):
        _, outcomes = run_world(make, ranks, micro, epoch=1)
        for whole, steps in zip(alone, zip(*outcomes, strict=True), strict=True):
            parts = [part for step in steps for part in step.micro_batches]
            expression = np.concatenate([part.expression[part.weight > 0] for part in parts])
            numbers = np.concatenate([part.id[part.weight > 0] for part in parts]) // 10
            assert numbers.tolist() == (whole.id // 10).tolist()
            np.testing.assert_array_equal(expression, labels_of(numbers, 2))
            assert {part.global_values for part in parts} == {np.isfinite(expression).sum(), whole.global_values}
            assert all(part.global_lengths.tolist() == whole.lengths.tolist() for part in parts)


def test_state_within_an_epoch_needs_its_global_batch(folders, monkeypatch):
    folder, index = folders[0][False]
    monkeypatch.setattr("pipeline.stream.stream.count_lanes", lambda *_: 4)
    stream, other = (ShardStream(folder, index, SPLIT, batch, RankSlice()) for batch in (8, 16))
    state = stream.state(1, 16)
    assert next(step.consumed for step in stream.resume(StreamState.from_json(state.to_json()))) == 24
    with pytest.raises(UserError, match="within an epoch of global batch 8, but this stream has global batch 16"):
        other.resume(state)
    with pytest.raises(UserError, match="within an epoch of an order without lanes"):
        stream.resume(StreamState(state.shard_key, SPLIT, 0, False, 1, 16))
    for consumed in (0, stream.rows):
        assert len(list(other.resume(stream.state(1, consumed)))) == (0 if consumed else len(other))
    with pytest.raises(UserError, match="consumed: expected a multiple of the global batch 8, got 12"):
        stream.epoch(0, 12)
    monkeypatch.undo()
    small, smaller = (ShardStream(folder, index, SPLIT, batch, RankSlice()) for batch in (8, 7))
    assert small.lanes == 1
    rows = [int(i) for step in small.epoch(1) for i in step.micro_batches[0].id]
    assert [int(i) for step in smaller.resume(small.state(1, 16)) for i in step.micro_batches[0].id] == rows[16:]
    monkeypatch.setattr("pipeline.stream.shuffle.LANE_ROWS", 4)
    lanes, single = (ShardStream(folder, index, SPLIT, batch, RankSlice()) for batch in (8, 1))
    assert lanes.lanes > single.lanes == 1
    with pytest.raises(UserError, match="within an epoch of global batch 8, but this stream has global batch 1"):
        single.resume(lanes.state(1, 16))
