"""Parts of the stream, each compared with a slow reference."""

import threading
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.runtime.prefetch import prefetch
from pipeline.shards.records import Record
from pipeline.stream.batching import RankSlice, assign_rows, collate
from pipeline.stream.reader import LABEL_BITS, Rows, join_records
from pipeline.stream.stream import StreamState
from pipeline.tokens.kmers import Ragged, encode_text, vocabulary_size
from pipeline.tokens.padding import pad_rows, pad_tokens
from pipeline.tokens.reverse_complement import draw_strands, reverse_complement

dtypes = st.sampled_from([np.uint8, np.uint16, np.uint32])


def ragged(lengths, dtype, seed=0):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.random.default_rng(seed).integers(1, np.iinfo(dtype).max, offsets[-1], dtype, endpoint=True)
    return Ragged(values, offsets)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), dtypes, st.integers(0, 40), st.data())
def test_padding(lengths, dtype, more, data):
    rows = ragged(lengths, dtype)
    picks = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=20)), np.int64)
    width = max(lengths) + more
    roomy = np.concatenate([rows.values, np.full(width, 7, dtype)])  # values after the end are ignored
    result = pad_rows(roomy, rows.offsets[picks], np.array(lengths)[picks], width)
    assert result.shape == (len(picks), width)
    assert result.dtype == dtype
    for row, pick in zip(result, picks, strict=True):
        assert np.array_equal(row[: lengths[pick]], rows.row(pick))
        assert not row[lengths[pick] :].any()
    every = pad_tokens(rows, np.arange(len(rows)), np.array(lengths))
    assert every.shape[1] == -(-max(lengths) // 8) * 8


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 16),
    st.integers(1, 4),
    dtypes,
    st.booleans(),
    st.data(),
)
def test_blocks_contain_the_rows_of_each_rank(quotas, step_count, ranks, micro, dtype, several_labels, data):
    """Any lanes, windows that end anywhere in them, and empty micro-batches."""
    lanes, grid = [], []
    for number, quota in enumerate(quotas):
        lengths = data.draw(st.lists(st.integers(0, 30), min_size=step_count * quota, max_size=step_count * quota))
        tokens = ragged(lengths, dtype, number)
        ids = 1000 * number + np.arange(len(lengths))
        expression = ids.astype(np.float32) / 2
        if several_labels:
            expression = np.stack([expression, np.where(ids % 3, ids, np.nan).astype(np.float32)], axis=1)
        picks = np.array(data.draw(st.permutations(range(len(lengths)))))
        lanes.append((Record(tokens, expression, ids * 3), ids, picks))
        grid.append(np.reshape(picks, (step_count, quota)) + 1000 * number)
    grid, batch = np.concatenate(grid, axis=1), sum(quotas)
    row_of = {int(i): (record, int(i) % 1000) for record, ids, _ in lanes for i in ids}
    lengths_of = np.vectorize(lambda i: len(row_of[i][0].tokens.row(row_of[i][1])))
    result = [[] for _ in range(step_count)]
    for rank in range(ranks):
        assignment = assign_rows(RankSlice(rank, ranks, micro), batch)
        begin, parts = 0, []
        for quota, (record, _, picks) in zip(quotas, lanes, strict=True):
            first, end = (min(max(edge - begin, 0), quota) for edge in assignment.range)
            begin += quota
            own = picks.reshape(step_count, quota)[:, first:end].ravel()
            if len(own):
                cut = data.draw(st.integers(0, len(own)))
                buffer = np.zeros(64, np.uint8)
                pieces = [part for part in (own[:cut], own[cut:]) if len(part)]
                windows = [join_records([record], [(0, len(record))], [1000], part, buffer)[0] for part in pieces]
                parts.append([Rows(window, 0, len(window)) for window in windows])
        block = collate(parts, assignment, batch, step_count, k=3)
        facts = lengths_of(grid)
        if several_labels:
            facts = np.vectorize(lambda i: (lengths_of(i) << LABEL_BITS) + 1 + int(i % 3 != 0))(grid)
        real = assignment.rows[assignment.weights > 0]
        assert np.array_equal(block.own_facts(), facts[:, real].ravel())
        for step, micro_batches in enumerate(block.slice_steps(facts)):
            numbers = grid[step]
            width = -(-int(lengths_of(numbers).max()) // 8) * 8
            assert len(micro_batches) == micro
            for part in micro_batches:
                assert part.global_rows == batch
                assert part.global_values == batch + several_labels * int((numbers % 3 != 0).sum())
                assert np.array_equal(part.global_lengths, lengths_of(numbers))
                assert part.tokens.shape == (len(part.id), width)
                assert part.tokens.dtype == dtype
                assert len(set(part.weight)) == 1
                for j, ids in enumerate(part.tokens):
                    number = int(numbers[part.first_row + j])
                    record, row = row_of[number]
                    expected = record.tokens.row(row)
                    assert (part.id[j], part.lengths[j]) == (number * 3, len(expected))
                    assert np.array_equal(part.expression[j], record.expression[row], equal_nan=True)
                    assert np.array_equal(ids[: len(expected)], expected)
                    assert not ids[len(expected) :].any()
                if part.weight[0]:
                    result[step] += range(part.first_row, part.first_row + len(part.id))
    assert all(sorted(numbers) == list(range(batch)) for numbers in result)


texts = st.lists(st.text(alphabet="ACGTN", max_size=25), min_size=1, max_size=6)
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def laid_out(sequences, k, width):
    tokens = np.zeros((len(sequences), width), np.min_scalar_type(vocabulary_size(k) - 1))
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = encode_text(sequence, k)
    return tokens


@settings(deadline=None, max_examples=150)
@given(texts, st.integers(1, 8), st.integers(0, 20))
def test_ids_of_the_other_strand_equal_encoded_reverse_complements(sequences, k, more):
    width = max(map(len, sequences)) + more
    lengths = np.array([len(sequence) for sequence in sequences])
    tokens = laid_out(sequences, k, width)
    other = reverse_complement(tokens, lengths, k)
    assert np.array_equal(other, laid_out([s.translate(COMPLEMENT)[::-1] for s in sequences], k, width))
    assert other.dtype == tokens.dtype
    assert np.array_equal(reverse_complement(other, lengths, k), tokens)


def test_other_strand_by_hand():
    ids = {text: int(encode_text(text, 3)[0]) for text in ("ACG", "CGT", "GTN", "TNN", "GTA", "TAN", "ANN")}
    tokens = np.array([[ids["ACG"], ids["CGT"], ids["GTA"], ids["TAN"], ids["ANN"], 0]], np.uint8)  # ACGTA
    other = reverse_complement(tokens, np.array([5]), 3)  # TACGT
    assert other.tolist() == [[int(encode_text("TAC", 3)[0]), ids["ACG"], ids["CGT"], ids["GTN"], ids["TNN"], 0]]


def test_strands_are_drawn_independently():
    positions = np.arange(100_000)
    drawn = draw_strands(1, 2, positions)
    assert np.array_equal(draw_strands(1, 2, positions[::-1]), drawn[::-1])
    assert np.array_equal(draw_strands(1, 2, positions[500:600]), drawn[500:600])
    for other in (draw_strands(1, 3, positions), draw_strands(2, 2, positions), drawn[1:], drawn[4096:]):
        assert abs((drawn[: len(other)] == other).mean() - 0.5) < 0.01  # 6 standard deviations
    assert abs(drawn.mean() - 0.5) < 0.01


def test_prefetch_is_bounded():
    made = []
    items = prefetch((made.append(i) or i for i in count()), 3, "test")
    assert [next(items) for _ in range(5)] == list(range(5))
    items.close()
    assert 5 <= len(made) <= 5 + 3 + 1


def test_error_is_raised_in_order_and_the_thread_ends():
    def work():
        yield from range(3)
        raise UserError("broken")

    before = threading.active_count()
    items = prefetch(work(), 1, "test")
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="broken"):
        next(items)
    assert threading.active_count() == before


def test_closing_ends_nested_threads():
    closed = threading.Event()

    def work():
        try:
            yield from count()
        finally:
            closed.set()

    before = threading.active_count()
    outer = prefetch(prefetch(work(), 1, "inner"), 1, "outer")
    next(outer)
    outer.close()
    assert closed.is_set()
    assert threading.active_count() == before


STATE = StreamState("key", "finetune/train", 3, False, 5, 1000)


def test_state_round_trip():
    assert StreamState.from_json(STATE.to_json()) == STATE
    assert len(STATE.to_json()) < 200
    for text in ("", "[]", "{}", STATE.to_json().replace("1000", '"1000"'), STATE.to_json().replace("3", "true")):
        with pytest.raises(UserError, match="not the state of a stream"):
            StreamState.from_json(text)


@pytest.mark.parametrize("field", ["shard_key", "split", "seed", "reverse_complement"])
def test_state_of_another_stream_is_rejected(field):
    other = {"shard_key": "other", "split": "pretrain/train", "seed": 4, "reverse_complement": True}
    now = StreamState(**{"shard_key": "key", "split": "finetune/train", "seed": 3, "reverse_complement": False})
    STATE.check(now)
    with pytest.raises(UserError, match=f"{field} .*, but this stream has {other[field]}"):
        STATE.check(StreamState(**{**now.__dict__, field: other[field]}))
