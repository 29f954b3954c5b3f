import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from model.prediction.journal import Journal

PARTS = st.lists(st.lists(st.text("ACGTN", max_size=6), max_size=4), max_size=5)


def of(part, salt=0.5):
    return np.array([len(sequence) + salt for sequence in part], np.float32)


def taken(path, key, parts):
    """The values of the leading parts that a journal holds; what it does not hold is added."""
    journal, found = Journal(path, key), []
    for part in parts:
        sequences = pa.array(part, pa.string())
        values = journal.take(sequences)
        if values is None:
            journal.add(sequences, of(part))
        else:
            found.append(values.tolist())
    journal.close()
    return found


@settings(max_examples=60, deadline=None)
@given(parts=PARTS, data=st.data())
def test_whatever_a_kill_left_a_prefix_is_taken_and_the_rest_comes_again(tmp_path_factory, parts, data):
    path = tmp_path_factory.mktemp("journal") / "j"
    everything = [of(part).tolist() for part in parts]
    assert taken(path, "key", parts) == []
    whole = path.read_bytes()
    assert taken(path, "key", parts) == everything
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = taken(path, "key", parts)
    assert found == everything[: len(found)]
    assert path.read_bytes() == whole


@settings(max_examples=40, deadline=None)
@given(parts=PARTS, other=PARTS)
def test_only_the_same_sequences_under_the_same_key_are_taken(tmp_path_factory, parts, other):
    path = tmp_path_factory.mktemp("journal") / "j"
    taken(path, "key", parts)
    alike = next((i for i, (a, b) in enumerate(zip(parts, other, strict=False)) if a != b), min(len(parts), len(other)))
    assert taken(path, "key", other) == [of(part).tolist() for part in other[:alike]]
    assert taken(path, "another key", other) == []


def test_a_flipped_bit_is_seen(tmp_path):
    parts = [["ACGT", "A"], ["C"]]
    taken(tmp_path / "j", "key", parts)
    whole = bytearray((tmp_path / "j").read_bytes())
    whole[-1] ^= 1
    (tmp_path / "j").write_bytes(whole)
    assert taken(tmp_path / "j", "key", parts) == [of(parts[0]).tolist()]
