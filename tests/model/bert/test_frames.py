import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bert.frames import one_frame, overlapping_kmers, reading_frames
from pipeline.tokens.kmers import CLS, PAD, SEP, encode_text

texts = st.lists(st.text(alphabet="ACGTN", max_size=20), min_size=1, max_size=6)


def padded(sequences, k, width=24):
    tokens = np.zeros((len(sequences), width), np.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = encode_text(sequence, k)
    return torch.from_numpy(tokens), torch.tensor([len(s) for s in sequences])


def test_by_hand():
    tokens, lengths = padded(["ACGTACG", "AC"], 3, width=8)
    frames = reading_frames(tokens, lengths, 3)
    acg, tac, cgt, gta = (encode_text(t, 3)[0] for t in ("ACG", "TAC", "CGT", "GTA"))
    assert frames.input_ids[0].tolist() == [[CLS, acg, tac, SEP], [CLS, cgt, int(encode_text("ACG", 3)[0]), SEP],
                                            [CLS, gta, SEP, PAD]]  # fmt: skip
    assert frames.attention_mask[0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert frames.input_ids[1].tolist() == [[CLS, SEP, PAD, PAD]] * 3
    assert frames.kmers.tolist() == [[2, 2, 1], [0, 0, 0]]


@settings(deadline=None, max_examples=100)
@given(texts, st.integers(1, 8))
def test_each_frame_holds_the_whole_kmers_from_its_base_on(sequences, k):
    tokens, lengths = padded(sequences, k)
    frames = reading_frames(tokens, lengths, k)
    for row, sequence in enumerate(sequences):
        for f in range(k):
            whole = max(len(sequence) - f, 0) // k
            expected = [CLS, *encode_text(sequence, k)[f::k][:whole].tolist(), SEP]
            found = frames.input_ids[row, f]
            assert found[: len(expected)].tolist() == expected
            assert not found[len(expected) :].any()
            assert frames.attention_mask[row, f].sum() == len(expected)
            assert frames.kmers[row, f] == whole


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(1, 8))
def test_overlapping_tokens_are_the_whole_kmers_at_all_bases(sequences, k):
    tokens, lengths = padded(sequences, k)
    frames = overlapping_kmers(tokens, lengths, k)
    for row, sequence in enumerate(sequences):
        whole = max(len(sequence) - k + 1, 0)
        expected = [CLS, *encode_text(sequence, k)[:whole].tolist(), SEP]
        found = frames.input_ids[row, 0]
        assert found[: len(expected)].tolist() == expected
        assert not found[len(expected) :].any()
        assert frames.attention_mask[row].sum() == len(expected)
        assert frames.kmers[row].tolist() == [whole]


def test_one_frame_a_row():
    tokens, lengths = padded(["ACGTACGTACGT"] * 3, 3)
    frames = reading_frames(tokens, lengths, 3)
    chosen = one_frame(frames, torch.tensor([2, 0, 1]))
    for row, frame in enumerate((2, 0, 1)):
        assert torch.equal(chosen.input_ids[row], frames.input_ids[row, frame])
        assert chosen.kmers[row] == frames.kmers[row, frame]
