import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bert.frames import cut_reading_frames, select_frames, take_overlapping_kmers
from pipeline.tokens.kmers import CLS, PAD, SEP, encode_text

texts = st.lists(st.text(alphabet="ACGTN", max_size=20), min_size=1, max_size=6)


def padded(sequences, k, width=24):
    tokens = np.zeros((len(sequences), width), np.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = encode_text(sequence, k)
    return torch.from_numpy(tokens), torch.tensor([len(s) for s in sequences])


def test_reading_frames_of_a_short_example():
    tokens, lengths = padded(["ACGTACG", "AC"], 3, width=8)
    frames = cut_reading_frames(tokens, lengths, 3)
    acg, tac, cgt, gta = (encode_text(t, 3)[0] for t in ("ACG", "TAC", "CGT", "GTA"))
    assert frames.input_ids[0].tolist() == [[CLS, acg, tac, SEP], [CLS, cgt, int(encode_text("ACG", 3)[0]), SEP],
                                            [CLS, gta, SEP, PAD]]  # fmt: skip
    assert frames.attention_mask[0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert frames.input_ids[1].tolist() == [[CLS, SEP, PAD, PAD]] * 3
    assert frames.kmers.tolist() == [[2, 2, 1], [0, 0, 0]]


@settings(deadline=None, max_examples=100)
@given(texts, st.integers(1, 8))
def test_frame_f_holds_the_complete_kmers_from_base_f_on(sequences, k):
    tokens, lengths = padded(sequences, k)
    frames = cut_reading_frames(tokens, lengths, k)
    for row, sequence in enumerate(sequences):
        for f in range(k):
            whole = max(len(sequence) - f, 0) // k
            expected = [CLS, *encode_text(sequence, k)[f::k][:whole].tolist(), SEP]
            ids = frames.input_ids[row, f]
            assert ids[: len(expected)].tolist() == expected
            assert not ids[len(expected) :].any()
            assert frames.attention_mask[row, f].sum() == len(expected)
            assert frames.kmers[row, f] == whole


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(1, 8))
def test_overlapping_tokens_are_the_complete_kmers_at_all_bases(sequences, k):
    tokens, lengths = padded(sequences, k)
    frames = take_overlapping_kmers(tokens, lengths, k)
    for row, sequence in enumerate(sequences):
        whole = max(len(sequence) - k + 1, 0)
        expected = [CLS, *encode_text(sequence, k)[:whole].tolist(), SEP]
        ids = frames.input_ids[row, 0]
        assert ids[: len(expected)].tolist() == expected
        assert not ids[len(expected) :].any()
        assert frames.attention_mask[row].sum() == len(expected)
        assert frames.kmers[row].tolist() == [whole]


def test_select_frames_picks_one_frame_per_row():
    tokens, lengths = padded(["ACGTACGTACGT"] * 3, 3)
    frames = cut_reading_frames(tokens, lengths, 3)
    selection = select_frames(frames, torch.tensor([2, 0, 1]))
    for row, frame in enumerate((2, 0, 1)):
        assert torch.equal(selection.input_ids[row], frames.input_ids[row, frame])
        assert selection.kmers[row] == frames.kmers[row, frame]
