import io
import json

import numpy as np
import pyarrow as pa
import pytest

from model.prediction.inputs import Part
from model.prediction.writers import LeaderboardInputError, ProblemReport, leaderboard_writer, write_lines
from model.scoring.dream_files import read_labels, read_predictions
from pipeline.errors import UserError
from tests.model.scoring.toy_challenge import ROWS, make_challenge


@pytest.fixture
def toy(tmp_path):
    return make_challenge(tmp_path)


def write(form, sequences, values, sizes=(1, 7, 30, 22)):
    """Write parts of these sizes; a prediction of NaN has a problem."""

    def parts():
        first = 0
        for size in sizes:
            which = slice(first, first + size)
            problem = pa.array(["bad" if np.isnan(value) else None for value in values[which]], pa.string())
            prediction = pa.array(values[which], from_pandas=True)
            yield Part(first, pa.table({"sequence": sequences[which], "prediction": prediction, "problem": problem}))
            first += size

    file = io.BytesIO()
    form(file, parts())
    return file.getvalue().decode()


@pytest.mark.parametrize("name", ["p.tsv", "p.json"])
def test_predictions_are_read_back_to_six_digits(toy, name):
    values = np.random.default_rng(0).normal(11, 3, ROWS).astype(np.float32)
    values[3] = 1e-12
    form = leaderboard_writer(toy.folder / "ground.json") if name == "p.json" else write_lines
    labels = read_labels(toy.folder / "ground.json", toy.folder / "test.txt")
    text = write(form, toy.sequences, values)
    (toy.folder / name).write_text(text)
    is_labelled = np.isfinite(labels.values)
    assert 0 < is_labelled.sum() < ROWS
    np.testing.assert_allclose(read_predictions(toy.folder / name, labels)[is_labelled], values[is_labelled], rtol=5e-6)
    assert write(form, toy.sequences, values, sizes=(60,)) == text


def test_leaderboard_file_holds_the_rows_of_the_sample(toy):
    sample = toy.folder / "ground.json"
    written = json.loads(write(leaderboard_writer(sample), toy.sequences, np.arange(ROWS, dtype=np.float32)))
    assert written.keys() == json.loads(sample.read_text()).keys()
    assert all(float(key) == value for key, value in written.items())


def test_invalid_leaderboard_rows_raise(toy):
    sample = toy.folder / "ground.json"
    rows = sorted(map(int, json.loads(sample.read_text())))
    values = np.ones(ROWS, np.float32)
    with pytest.raises(UserError, match=rf"requires row {rows[-1]} \(from 0\), but there are {rows[-1]} rows"):
        write(leaderboard_writer(sample), toy.sequences, values, sizes=(rows[-1],))
    values[rows[0]] = np.nan
    with pytest.raises(
        UserError, match=rf"row {rows[0]} \(from 0\), which the leaderboard requires, has no prediction: bad"
    ):
        write(leaderboard_writer(sample), toy.sequences, values)
    values[rows[0]] = np.inf  # a valid row: its journal is kept
    with pytest.raises(UserError, match="a prediction that is not a finite number") as error:
        write(leaderboard_writer(sample), toy.sequences, values)
    assert not isinstance(error.value, LeaderboardInputError)
    for text, message in (("[]", "row numbers"), ('{"a": 1}', "row numbers"), ("{", "not JSON")):
        (toy.folder / "sample.json").write_text(text)
        with pytest.raises(UserError, match=message):
            leaderboard_writer(toy.folder / "sample.json")


def test_published_sample_submission(real_data):
    sample = real_data / "dream_leaderboard" / "sample_submission.json"
    assert len(json.loads(sample.read_text())) == 9045
    text = write(leaderboard_writer(sample), [""] * 71103, np.arange(71103, dtype=np.float32), sizes=(71103,))
    assert json.loads(text).keys() == json.loads(sample.read_text()).keys()


def test_a_line_end_in_an_invalid_sequence_makes_no_second_row():
    sequences = ["ACGT", "AC\nGT\t5", "A C\rG"]
    columns = {"sequence": sequences, "prediction": pa.array([1.5, None, None]), "problem": [None, "bad", "bad"]}
    file, problems = io.BytesIO(), io.StringIO()
    write_lines(file, iter([Part(0, pa.table(columns))]))
    assert file.getvalue() == b"ACGT\t1.5\nAC GT 5\tnan\nA C G\tnan\n"
    ProblemReport(problems).add(Part(0, pa.table({**columns, "repaired": sequences})))
    assert [line.split("\t")[0] for line in problems.getvalue().splitlines()] == ["row", "2", "3"]
