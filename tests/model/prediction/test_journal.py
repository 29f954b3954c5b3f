import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from model.prediction.inputs import Part
from model.prediction.journal import Journal

PARTS = st.lists(st.lists(st.text("ACGTN", max_size=6), max_size=4), max_size=5)


def values_of(sequences, salt=0.5):
    return np.array([len(sequence) + salt for sequence in sequences.to_pylist()], np.float32)


def resume(path, key, sequences):
    """Run to the end with the journal at `path`, check all parts, and return the rows resumed from it."""
    parts = [
        Part(0, pa.table({"repaired": pa.array(part, pa.string()), "problem": pa.nulls(len(part), pa.string())}))
        for part in sequences
    ]

    def predict(rest):
        for part in rest:
            yield part, values_of(part.valid_sequences)

    path.touch()
    with path.open("r+b") as file:
        journal = Journal(file, key)
        results = [(part, values.tolist()) for part, values in journal.resume(iter(parts), predict)]
        assert [part for part, _ in results] == parts
        assert [values for _, values in results] == [values_of(part.valid_sequences).tolist() for part in parts]
        assert journal.is_empty == (not any(sequences))
        return journal.rows_resumed


@settings(max_examples=60, deadline=None)
@given(parts=PARTS, data=st.data())
def test_truncated_journal_resumes_from_its_whole_entries(tmp_path_factory, parts, data):
    path = tmp_path_factory.mktemp("journal") / "j"
    assert resume(path, b"key", parts) == 0
    whole = path.read_bytes()
    assert resume(path, b"key", parts) == sum(map(len, parts))
    kept = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:kept])
    resumed, ends = 0, 0
    for part in parts:
        ends += 16 + 4 * len(part)
        resumed += len(part) * (ends <= kept)
    assert resume(path, b"key", parts) == resumed
    assert path.read_bytes() == whole


@settings(max_examples=40, deadline=None)
@given(parts=PARTS, other=PARTS)
def test_only_entries_of_the_same_sequences_and_key_are_used(tmp_path_factory, parts, other):
    path = tmp_path_factory.mktemp("journal") / "j"
    resume(path, b"key", parts)
    alike = next((i for i, (a, b) in enumerate(zip(parts, other, strict=False)) if a != b), min(len(parts), len(other)))
    assert resume(path, b"key", other) == sum(map(len, other[:alike]))
    assert resume(path, b"another key", other) == 0


def test_flipped_bit_is_detected(tmp_path):
    parts = [["ACGT", "A"], ["C"]]
    resume(tmp_path / "j", b"key", parts)
    whole = bytearray((tmp_path / "j").read_bytes())
    whole[-1] ^= 1
    (tmp_path / "j").write_bytes(whole)
    assert resume(tmp_path / "j", b"key", parts) == 2
